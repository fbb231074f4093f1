"""CLIP's attention-pooled ResNet up to its pool: shared by teacher, backbone and small CLIP."""

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from util.pixels import IMAGENET_MEAN, IMAGENET_STD

STAGES = ("layer1", "layer2", "layer3", "layer4")


def stage_maps(visual: ModifiedResNet, pixels: Tensor, stages: int = len(STAGES)) -> list[Tensor]:
    """(B, 3, H, W) in CLIP's normalisation -> the maps of the first `stages` stages, strides 4, 8, 16, 32."""
    x, maps = visual.stem(pixels), []
    for name in STAGES[:stages]:
        x = getattr(visual, name)(x)
        maps.append(x)
    return maps


def from_imagenet(visual: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift, (1, 3, 1, 1) each, that turn ImageNet's normalisation into the tower's.

    Student pixels are (x - m) / s; CLIP wants (x - mean) / std of the same x. open_clip notes a tower's own
    normalisation when it loads weights by tag; others use CLIP's.
    """
    mean = torch.tensor(getattr(visual, "image_mean", None) or OPENAI_DATASET_MEAN)
    std = torch.tensor(getattr(visual, "image_std", None) or OPENAI_DATASET_STD)
    scale = torch.tensor(IMAGENET_STD) / std
    shift = (torch.tensor(IMAGENET_MEAN) - mean) / std
    return scale.view(1, 3, 1, 1), shift.view(1, 3, 1, 1)
