"""CLIP's attention-pooled ResNet and its pool: shared by teacher, backbone and the small CLIP."""

import torch
from jaxtyping import Float
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor, nn

from util.pixels import IMAGENET_MEAN, IMAGENET_STD

STAGES = ("layer1", "layer2", "layer3", "layer4")


def stage_maps(
    visual: ModifiedResNet, pixels: Float[Tensor, "B 3 H W"], stages: int = len(STAGES)
) -> list[Float[Tensor, "B _ _ _"]]:
    """(B, 3, H, W) in CLIP's normalisation -> the maps of the first `stages` stages, strides 4, 8, 16, 32."""
    x, maps = visual.stem(pixels), []
    for name in STAGES[:stages]:
        x = getattr(visual, name)(x)
        maps.append(x)
    return maps


def from_imagenet(visual: nn.Module) -> tuple[Float[Tensor, "1 3 1 1"], Float[Tensor, "1 3 1 1"]]:
    """Scale and shift, (1, 3, 1, 1) each, from ImageNet's normalisation to the tower's.

    Student pixels are (x - m) / s; CLIP expects (x - mean) / std of the same x. open_clip stores a tower's
    own normalisation when it loads weights by tag; other towers use OpenAI's.
    """
    mean = torch.tensor(getattr(visual, "image_mean", None) or OPENAI_DATASET_MEAN)
    std = torch.tensor(getattr(visual, "image_std", None) or OPENAI_DATASET_STD)
    scale = torch.tensor(IMAGENET_STD) / std
    shift = (torch.tensor(IMAGENET_MEAN) - mean) / std
    return scale.view(1, 3, 1, 1), shift.view(1, 3, 1, 1)


def attention_pool(pool: AttentionPool2d, features: Float[Tensor, "R D g g"]) -> Float[Tensor, "R E"]:
    """The same numbers as `pool(features)`, (R, D, g, g) -> (R, E), several times faster.

    open_clip computes attention for every cell as query and keeps only the mean's; here the mean is the only
    query.
    """
    cells = features.flatten(2).transpose(1, 2)
    cells = torch.cat((cells.mean(dim=1, keepdim=True), cells), dim=1) + pool.positional_embedding
    query = pool.q_proj(cells[:, :1])
    key, value = pool.k_proj(cells), pool.v_proj(cells)
    query, key, value = (t.unflatten(2, (pool.num_heads, -1)).transpose(1, 2) for t in (query, key, value))
    attention = (query * query.shape[-1] ** -0.5 @ key.transpose(2, 3)).softmax(dim=-1)
    return pool.c_proj((attention @ value).flatten(1))
