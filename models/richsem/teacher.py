"""The teacher: what a frozen CLIP sees in regions of the student's own batch. Training only."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.ops import roi_align

from models.richsem.clip_resnet import attention_pool, from_imagenet, stage_maps
from util.boxes import box_cxcywh_to_xyxy
from util.errors import UserError
from util.structures import PaddedImages, Targets


class SemanticTargets:
    """What the teacher saw in a batch: its feature map is made once, regions are pooled on demand."""

    def __init__(self, teacher: Teacher, features: Tensor, images: PaddedImages, targets: Targets):
        self._teacher = teacher
        self._features = features
        self._images = images
        self._targets = targets

    @cached_property
    def ground_truth(self) -> Tensor:
        """(N, E) unit vectors of all ground-truth boxes of the batch, in order."""
        return self.at(self._targets.boxes_cxcywh, self._targets.image_index)

    @torch.no_grad()
    def at(self, boxes_cxcywh: Tensor, image: Tensor) -> Tensor:
        """(K, 4) boxes in 0..1 of the unpadded images (K,) they lie in -> (K, E) unit vectors."""
        sizes = [(w, h, w, h) for h, w in self._images.sizes]
        scale = torch.tensor(sizes, dtype=boxes_cxcywh.dtype).to(boxes_cxcywh.device)
        boxes_xyxy = box_cxcywh_to_xyxy(boxes_cxcywh) * scale[image]
        regions = torch.cat((image[:, None].to(boxes_xyxy.dtype), boxes_xyxy), dim=1)
        embedding = self._teacher.pool(self._features, regions, self._images.tensor.shape[-2:])
        return F.normalize(embedding.to(self._teacher.mean.dtype), dim=-1)


class Teacher(nn.Module):
    """A frozen CLIP image tower. Not part of the model: no DDP, no optimizer, no checkpoint.

    Attention-pooled ResNets see the whole padded image; a region is RoIAligned from the last map to the
    pool's own grid and attention-pooled (paper section 3.2). Vision transformers see the image resized to
    their input size; a region is the RoIAligned mean of their projected patch tokens.
    Raises UserError for other towers.
    """

    def __init__(self, visual: nn.Module):
        super().__init__()
        if isinstance(visual, ModifiedResNet):
            grid = round((visual.attnpool.positional_embedding.shape[0] - 1) ** 0.5)
        elif isinstance(visual, VisionTransformer):
            grid = 1
        else:
            raise UserError(
                f"clip_model has an image tower of kind {type(visual).__name__}; the semantic branch needs "
                "an attention-pooled ResNet (RN50, ...) or a ViT"
            )
        self.visual = visual.eval().requires_grad_(False)
        self.grid = grid
        scale, shift = from_imagenet(visual)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("mean", shift, persistent=False)

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode: its batch norms never learn."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: PaddedImages, targets: Targets) -> SemanticTargets:
        """The student's padded batch (its padding becomes ImageNet's mean colour, as in the release)."""
        pixels = images.tensor.to(self.scale.dtype) * self.scale + self.mean
        return SemanticTargets(self, self._features(pixels), images, targets)

    def _features(self, pixels: Tensor) -> Tensor:
        if isinstance(self.visual, ModifiedResNet):
            return stage_maps(self.visual, pixels)[-1]
        size = self.visual.image_size
        pixels = F.interpolate(pixels, size=size, mode="bicubic", align_corners=False)
        tokens = self.visual.forward_intermediates(
            pixels, indices=1, normalize_intermediates=True, intermediates_only=True
        )["image_intermediates"][-1]
        return torch.einsum("bchw,ce->behw", tokens, self.visual.proj)

    def pool(self, features: Tensor, regions: Tensor, image_size: tuple[int, int]) -> Tensor:
        """regions (K, 5): image number and xyxy in pixels -> (K, E), not normalised."""
        # The map's own stride, per axis: 32 for a ResNet, image / patches for a resized ViT.
        if isinstance(self.visual, ModifiedResNet):
            height_stride = width_stride = 32.0
        else:
            height_stride = image_size[0] / features.shape[-2]
            width_stride = image_size[1] / features.shape[-1]
        unit = regions.new_tensor((1.0, width_stride, height_stride, width_stride, height_stride))
        # Under autocast the map is in 16 bit; places in it must not be.
        features = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
        pooled = roi_align(features, (regions / unit).to(features.dtype), self.grid, aligned=True)
        if isinstance(self.visual, ModifiedResNet):
            return attention_pool(self.visual.attnpool, pooled)
        return pooled.flatten(1)
