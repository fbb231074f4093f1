"""The teacher: what a frozen CLIP sees in regions of the student's own batch. Training only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from models.dino.sixteen_bit import exact_convolutions
from models.richsem.clip_resnet import tower_pixels
from models.richsem.region_encoders import make_region_encoder
from util.boxes import box_cxcywh_to_xyxy
from util.side_stream import beside
from util.structures import PaddedImages, Targets


@runtime_checkable
class SemanticTargets(Protocol):
    """What a teacher answers about one batch: unit vectors in the space of the text embeddings."""

    @property
    def ground_truth(self) -> Float[Tensor, "N E"]:
        """(N, E), all ground-truth boxes of the batch in order."""
        ...

    def embed_boxes(
        self, boxes_cxcywh: Float[Tensor, "K 4"], image_index: Int64[Tensor, " K"]
    ) -> Float[Tensor, "K E"]:
        """(K, 4) boxes in 0..1 of the unpadded images (K,) they lie in -> (K, E), without gradient."""
        ...


@runtime_checkable
class RegionTeacher(Protocol):
    """Anything that turns a training batch into semantic targets."""

    def __call__(self, images: PaddedImages, targets: Targets) -> SemanticTargets: ...


class Teacher(nn.Module):
    """A frozen CLIP image tower as a `RegionTeacher`. Not part of the model: no DDP, optimizer or checkpoint.

    `models.richsem.region_encoders` says how each kind of tower embeds a region.
    Raises UserError for a tower without a region encoder.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.encoder = make_region_encoder(visual.eval().requires_grad_(False))
        scale, shift = tower_pixels(visual)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode: its batch norms never learn."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: PaddedImages, targets: Targets) -> SemanticTargets:
        """The student's padded batch (its padding becomes ImageNet's mean colour, as in the release).

        On a GPU the tower computes on a stream of its own, beside what the student is given next.
        """
        return ClipSemanticTargets(self, beside(self.features, images.tensor), images, targets)

    def features(self, normalised: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        """The student's images -> the encoder's map."""
        with exact_convolutions(normalised, self.encoder.stride or 1.0):
            return self.encoder.features(normalised.to(self.scale.dtype) * self.scale + self.shift)


class ClipSemanticTargets:
    """`SemanticTargets` of CLIP: one feature map per batch, regions pooled on demand.

    features: gives the map, which a GPU may still be computing (`util.side_stream.beside`).
    """

    def __init__(
        self, teacher: Teacher, features: Callable[[], Tensor], images: PaddedImages, targets: Targets
    ):
        self._teacher = teacher
        self._features = features
        self._images = images
        self._targets = targets

    @cached_property
    def ground_truth(self) -> Float[Tensor, "N E"]:
        """See SemanticTargets."""
        return self.embed_boxes(self._targets.boxes_cxcywh, self._targets.image_index)

    @torch.no_grad()
    def embed_boxes(
        self, boxes_cxcywh: Float[Tensor, "K 4"], image_index: Int64[Tensor, " K"]
    ) -> Float[Tensor, "K E"]:
        """See SemanticTargets."""
        sizes = [(w, h, w, h) for h, w in self._images.sizes]
        scale = torch.tensor(sizes, dtype=boxes_cxcywh.dtype).to(boxes_cxcywh.device, non_blocking=True)
        boxes_xyxy = box_cxcywh_to_xyxy(boxes_cxcywh) * scale[image_index]
        regions = torch.cat((image_index[:, None].to(boxes_xyxy.dtype), boxes_xyxy), dim=1)
        height, width = self._images.tensor.shape[-2:]
        embedding = self._teacher.encoder.pool(self._features(), regions, (height, width))
        return F.normalize(embedding.to(self._teacher.scale.dtype), dim=-1)
