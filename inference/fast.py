"""A detector's network rearranged for inference on a CPU: the same results to float tolerance."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from models.dino.backbone import Backbone
from models.dino.detector import Detector
from models.dino.layers import with_children
from models.richsem.classifier import FoldedClasses, LanguageClassifier, TextEmbeddings

# (height, width) of the noise on which a rearranged backbone is compared with its original.
_TRIAL = (64, 96)
# Of the largest value in a map.
_TOLERANCE = 1e-4


def rearranged(model: Detector) -> Detector:
    """A detector for inference alone, that shares its weights with `model` where they are the same.

    Batch norms are folded into the convolutions before them, whose weights lie in channels-last order, and
    tokens are ranked by a `TokenRanking`. The original is left as it was.
    """
    changed: dict[str, nn.Module] = {"backbone": _fast_backbone(model.backbone)}
    # The second one exists where new words have queries of their own.
    for name in ("query_selection", "new_selection"):
        selection = getattr(model, name, None)
        if selection is None:
            continue
        classifier = selection.classifier
        if type(classifier) is LanguageClassifier and isinstance(classifier.projection, nn.Linear):
            changed[name] = with_children(
                selection, classifier=TokenRanking(classifier.projection, classifier.text)
            )
    return with_children(model, **changed)


@torch.no_grad()
def _fast_backbone(backbone: nn.Module) -> nn.Module:
    """Folded and channels-last. The original where that gives something else: where modules do not follow
    one another in the order in which they are registered."""
    device = next(backbone.parameters()).device
    fast = _folded(copy.deepcopy(backbone))
    for parameter in fast.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    trial = torch.randn(1, 3, *_TRIAL, generator=torch.Generator().manual_seed(0)).to(device)
    pairs = zip(fast(trial), backbone(trial), strict=True)
    same = all((a - b).abs().max() <= _TOLERANCE * b.abs().max() for a, b in pairs)
    return fast if same else backbone


def _folded(root: nn.Module) -> nn.Module:
    """`root`, its batch norms that come right after a convolution folded into it."""
    for parent in list(root.modules()):
        previous: nn.Module | None = None
        for name, child in list(parent.named_children()):
            norm = isinstance(child, (nn.BatchNorm2d, FrozenBatchNorm2d))
            if norm and isinstance(previous, nn.Conv2d) and _fold(previous, child):
                setattr(parent, name, nn.Identity())
            previous = child
        if isinstance(parent, Backbone):
            parent.folds = ()
    return root


def _fold(convolution: nn.Conv2d, norm: Any) -> bool:
    """Puts a batch norm's scale and shift into a convolution; False where the channels do not fit."""
    if len(norm.running_var) != convolution.out_channels:
        return False
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias * scale
    weight = convolution.weight * scale[:, None, None, None]
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    convolution.bias = nn.Parameter(shift, requires_grad=False)
    return True


class TokenRanking(nn.Module):
    """In place of the encoder's classifier: its classes are projected once, and it does nothing but rank."""

    def __init__(self, projection: nn.Linear, text: TextEmbeddings) -> None:
        super().__init__()
        self.folded = FoldedClasses.of(projection.weight.detach(), text)

    def ranking(self) -> Callable[[Tensor], Tensor]:
        """As `LanguageClassifier.ranking`."""
        return self.folded.max_logit

    def forward(self, queries: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape C"]:
        """NaN, and no work: these logits serve the encoder's losses alone."""
        return queries.new_full((), torch.nan).expand(*queries.shape[:-1], len(self.folded.rows))
