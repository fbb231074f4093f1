"""A class from a few example images: rows fitted to what the detector itself makes of their boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import box_iou

from models.dino.detector import Detector
from models.dino.layers import with_children
from models.dino.pyramid import Pyramid
from models.dino.query_selection import QuerySelection, proposal_anchors
from models.richsem.classifier import LanguageClassifier, unit_vectors
from models.richsem.vocabulary import ClassRows, NewRows, RowClassifier
from util.boxes import box_cxcywh_to_xyxy
from util.structures import PaddedImages

# Predictions that overlap a box so much stand for it, and the best one from MIN_IOU on; those that overlap no
# box of the class by MIN_IOU are background.
GOOD_IOU = 0.6
MIN_IOU = 0.3
# Background vectors an image, so that large images do not drown the examples.
MOST_NEGATIVES = 2048
# Of the fit: L2 penalty, and the part of the loss that the examples of the class have.
PENALTY = 1e-4
POSITIVE_SHARE = 0.1


@dataclass(frozen=True)
class ExampleImage:
    """images: one, as the network takes it.  boxes_cxcywh: (N, 4) in 0..1.  labels: (N,) 0..K-1."""

    images: PaddedImages
    boxes_cxcywh: Float[Tensor, "N 4"]
    labels: Int64[Tensor, " N"]


@dataclass
class _Vectors:
    """Unit vectors of one class's boxes, and of what lies beside them in their images."""

    positive: list[Tensor] = field(default_factory=list)
    negative: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def fit_examples(
    model: Detector, examples: Callable[[], Iterable[ExampleImage]], classes: int, *, one_class_encoder: bool
) -> NewRows:
    """Rows of K classes from their boxes in images, for a trained model with a text classifier.

    The encoder's rows separate the tokens whose proposals fit a class's boxes from the other tokens of their
    images, and from those of the other classes. With these rows the decoder gets its queries, and the head's
    rows separate those that fit the boxes from the others. Both are logistic regressions on unit vectors in
    CLIP's space.
    examples: gives the images anew at every call; every class has a box. one_class_encoder: the encoder
    scores objectness (`enc_cls_agn`) and needs no rows.
    """
    selection = model.query_selection
    encoder = None
    if not one_class_encoder:
        vectors = [_Vectors() for _ in range(classes)]
        for example in examples():
            memory = model.encode(example.images.to(model.device))
            _collect(vectors, example, *_tokens(selection, memory))
        encoder = _fit(vectors).to(model.device)
        assert isinstance(selection.classifier, LanguageClassifier)
        by_rows = RowClassifier(selection.classifier.projection, encoder)
        selection = with_children(selection, classifier=by_rows)
    vectors = [_Vectors() for _ in range(classes)]
    for example in examples():
        memory = model.encode(example.images.to(model.device))
        output = model.decode(memory, selection(memory)).final
        assert isinstance(model.head.classifier, LanguageClassifier) and output.hidden is not None
        unit = unit_vectors(model.head.classifier.projection, output.hidden)[0]
        _collect(vectors, example, unit, output.boxes_cxcywh[0])
    head = _fit(vectors).to(model.device)
    return NewRows(head, encoder or head)


def _tokens(selection: QuerySelection, memory: Pyramid) -> tuple[Tensor, Tensor]:
    """Unit vectors (S, E) and proposed boxes (S, 4) of one image's valid tokens."""
    anchors, valid = proposal_anchors(memory)
    hidden = selection.norm(selection.projection(memory.tokens[valid]))
    boxes_cxcywh = torch.sigmoid(selection.box_head(hidden) + anchors[valid])
    assert isinstance(selection.classifier, LanguageClassifier)
    return unit_vectors(selection.classifier.projection, hidden), boxes_cxcywh


def _collect(
    vectors: Sequence[_Vectors],
    example: ExampleImage,
    unit: Float[Tensor, "P E"],
    boxes_cxcywh: Float[Tensor, "P 4"],
) -> None:
    """Adds the predictions of one image to its classes."""
    asked = box_cxcywh_to_xyxy(example.boxes_cxcywh.to(boxes_cxcywh))
    overlap = box_iou(asked, box_cxcywh_to_xyxy(boxes_cxcywh))
    for label in example.labels.unique().tolist():
        ious = overlap[(example.labels == label).to(overlap.device)]
        best, index = ious.max(dim=1)
        best_ones = index[best > MIN_IOU] if (best > MIN_IOU).any() else index[best.argmax()][None]
        fitting = torch.cat((best_ones, (ious.amax(0) > GOOD_IOU).nonzero()[:, 0]))
        beside = (ious.amax(0) < MIN_IOU).nonzero()[:, 0]
        order = torch.randperm(len(beside), generator=torch.Generator().manual_seed(0))
        beside = beside[order[:MOST_NEGATIVES].to(beside.device)]
        vectors[label].positive.append(unit[fitting.unique()].cpu())
        vectors[label].negative.append(unit[beside].cpu())


def _fit(vectors: Sequence[_Vectors]) -> ClassRows:
    fitted = []
    for own in vectors:
        others = [unit for other in vectors if other is not own for unit in other.positive]
        fitted.append(separate(torch.cat(own.positive), torch.cat(own.negative + others)))
    return ClassRows(torch.stack([weight for weight, _ in fitted]), torch.stack([bias for _, bias in fitted]))


@torch.enable_grad()
def separate(
    positive: Float[Tensor, "N E"], negative: Float[Tensor, "M E"]
) -> tuple[Float[Tensor, " E"], Float[Tensor, ""]]:
    """Weight and bias of the L2-penalised logistic regression whose classes have fixed shares of the loss."""
    x = torch.cat((positive, negative)).double()
    sign = torch.cat((torch.ones(len(positive)), -torch.ones(len(negative)))).double()
    share = torch.where(
        sign > 0, POSITIVE_SHARE / len(positive), (1 - POSITIVE_SHARE) / max(1, len(negative))
    )
    weight = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = (share * F.softplus(-sign * (x @ weight + bias))).sum() + PENALTY * weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return weight.detach().float(), bias.detach().float()
