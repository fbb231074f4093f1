"""CLIP's attention-pooled ResNet and its pool: shared by teacher, backbone and the small CLIP."""

import torch
from jaxtyping import Float
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from torch import Tensor, nn

from models.dino.pixel_statistics import from_imagenet

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


def tower_pixels(visual: nn.Module) -> tuple[Float[Tensor, "1 3 1 1"], Float[Tensor, "1 3 1 1"]]:
    """Scale and shift, (1, 3, 1, 1) each, from ImageNet's normalisation, the student's, to the tower's.

    open_clip stores a tower's own normalisation when it loads weights by tag; other towers use OpenAI's.
    """
    mean = getattr(visual, "image_mean", None) or OPENAI_DATASET_MEAN
    return from_imagenet(mean, getattr(visual, "image_std", None) or OPENAI_DATASET_STD)


def attention_pool(pool: AttentionPool2d, features: Float[Tensor, "R D g g"]) -> Float[Tensor, "R E"]:
    """The same numbers as `pool(features)`, (R, D, g, g) -> (R, E), with a twentieth of the products.

    open_clip computes attention for every cell as query and keeps only the mean's; here the mean is the only
    query. No cell is projected to a key or a value either: with H heads of d channels, k_h the keys' weights
    and q the query, q_h . (k_h cell) = (k_h' q_h) . cell, and the sum of values is the value of the sum of
    cells. The keys' bias adds the same to all cells' logits, which the softmax does not see.
    """
    cells = features.flatten(2).transpose(1, 2)
    cells = torch.cat((cells.mean(dim=1, keepdim=True), cells), dim=1) + pool.positional_embedding
    heads = pool.num_heads
    query = pool.q_proj(cells[:, 0]).unflatten(1, (heads, -1)).transpose(0, 1)  # (H, R, d)
    key, value = (p.weight.unflatten(0, (heads, -1)) for p in (pool.k_proj, pool.v_proj))  # (H, d, D)
    asked = (query * query.shape[-1] ** -0.5 @ key).transpose(0, 1)  # (R, H, D)
    attended = (asked @ cells.mT).softmax(dim=-1) @ cells
    values = (attended.transpose(0, 1) @ value.mT).transpose(0, 1).flatten(1)  # (R, H * d)
    return pool.c_proj(values + pool.v_proj.bias)
