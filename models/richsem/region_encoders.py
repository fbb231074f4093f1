"""Region encoders: how each kind of CLIP image tower embeds a box. One class per kind of tower."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.ops import roi_align

from models.dino.folding import folded_parameters, make_foldable
from models.dino.layers import at_least_float32
from models.dino.sixteen_bit import autocast_type
from models.richsem.clip_resnet import attention_pool, stage_maps
from util.errors import UserError


class RegionEncoder(nn.Module, ABC):
    """A tower's feature map, and the embedding of a region of it.

    stride: pixels of the batch per cell of the map; None where the tower resizes the image.
    grid:   a region is RoIAligned to grid x grid cells; 1 gives its mean.
    """

    stride: float | None = None
    grid: int = 1
    visual: Any  # open_clip's towers are not typed

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual

    @abstractmethod
    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        """(B, 3, H, W) in the tower's normalisation -> (B, D, h, w)."""

    def embed(self, cells: Tensor) -> Tensor:
        """(K, D, grid, grid) of a region -> (K, E), not normalised."""
        return cells.flatten(1)

    def pool(self, features: Tensor, regions: Tensor, image_size: tuple[int, int]) -> Tensor:
        """regions (K, 5): image index and xyxy in pixels of the padded batch -> (K, E), not normalised."""
        height, width = self.stride, self.stride
        if height is None or width is None:
            height, width = image_size[0] / features.shape[-2], image_size[1] / features.shape[-1]
        cell = regions.new_tensor((1.0, width, height, width, height))
        # Under autocast the map is in 16 bit; positions in it must not be.
        features = at_least_float32(features)
        return self.embed(roi_align(features, (regions / cell).to(features.dtype), self.grid, aligned=True))


_ENCODERS: dict[type[nn.Module], type[RegionEncoder]] = {}


def encodes(tower: type[nn.Module]) -> Callable[[type[RegionEncoder]], type[RegionEncoder]]:
    """Class decorator: the region encoder of image towers of that class."""

    def register(encoder: type[RegionEncoder]) -> type[RegionEncoder]:
        _ENCODERS[tower] = encoder
        return encoder

    return register


def make_region_encoder(visual: nn.Module) -> RegionEncoder:
    """The region encoder of a CLIP image tower. Raises UserError where there is none for it."""
    for tower, encoder in _ENCODERS.items():
        if isinstance(visual, tower):
            return encoder(visual)
    raise UserError(
        f"clip_model has an image tower of kind {type(visual).__name__}; the semantic branch needs an "
        "attention-pooled ResNet (RN50, ...), a ViT (ViT-B-16, ...) or a ConvNeXt (convnext_base_w, ...)"
    )


@encodes(ModifiedResNet)
class AttentionPoolEncoder(RegionEncoder):
    """A region is RoIAligned to the attention pool's own grid and attention-pooled (paper section 3.2).

    The tower's batch norms are frozen, and folded into its convolutions once.
    """

    stride = 32.0

    def __init__(self, visual: ModifiedResNet):
        super().__init__(freeze_batch_norm_2d(visual))
        self._folds = make_foldable(self)
        self._folded: tuple[Any, dict[str, Tensor]] = (None, {})
        self.grid = round((visual.attnpool.positional_embedding.shape[0] - 1) ** 0.5)

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        """As `features`, with the weights as they are."""
        return stage_maps(self.visual, pixels)[-1]

    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        if torch.compiler.is_compiling():
            return self(pixels)
        tensors = itertools.chain(self.parameters(), self.buffers())
        state = autocast_type(pixels.device), [(id(t), t._version, t.dtype, t.device) for t in tensors]
        if self._folded[0] != state:
            self._folded = state, folded_parameters(self, self._folds, pixels)
        return functional_call(self, self._folded[1], (pixels,), tie_weights=False)

    def embed(self, cells: Tensor) -> Tensor:
        return attention_pool(self.visual.attnpool, cells)


@encodes(VisionTransformer)
class PatchEncoder(RegionEncoder):
    """The image is resized to the tower's input size; a region is the mean of its projected patch tokens."""

    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        pixels = F.interpolate(pixels, size=self.visual.image_size, mode="bicubic", align_corners=False)
        tokens = self.visual.forward_intermediates(
            pixels, indices=1, normalize_intermediates=True, intermediates_only=True
        )["image_intermediates"][-1]
        return torch.einsum("bchw,ce->behw", tokens, self.visual.proj)


@encodes(TimmModel)
class TimmConvEncoder(RegionEncoder):
    """A convolutional timm trunk with a mean pool (ConvNeXt): a region's mean goes through the tower's head.

    Raises UserError for trunks of tokens and for pools with positions.
    """

    def __init__(self, visual: TimmModel):
        super().__init__(visual)
        trunk = visual.trunk
        tokens = hasattr(trunk, "num_prefix_tokens") or getattr(trunk, "output_fmt", "NCHW") != "NCHW"
        if tokens or hasattr(visual.head, "pool"):
            raise UserError(
                f"clip_model has a timm image tower of kind {type(trunk).__name__}; of timm's towers the "
                "semantic branch takes convolutional ones with a mean pool (convnext_base_w, ...)"
            )
        self.stride = float(trunk.feature_info[-1]["reduction"])

    def features(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        return self.visual.trunk.forward_features(pixels)

    def embed(self, cells: Tensor) -> Tensor:
        return self.visual.head(self.visual.trunk.forward_head(cells))
