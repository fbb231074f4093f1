"""The real models in miniature: a config of a few thousand weights, images, targets, CLIP models."""

import copy
from collections.abc import Sequence
from functools import cache

import open_clip
import torch
from torch import Tensor, nn

from config.schema import Config
from models.dino.pyramid import Pyramid, cells, token_mask, valid_ratios
from models.richsem.build import Clip, ModelParts, build_model
from models.richsem.clip import freeze
from util.structures import PaddedImages, Target, Targets

NAMES = ("red_cup", "blue_cup", "old_boat", "cat", "tin_can", "kite", "oar")
COUNTS = (90, 40, 10, 5, 2, 1, 1)
SIZES = ((64, 96), (80, 64))
EMBEDDING = 16


def tiny_config(**changes) -> Config:
    """The real config, RichSem unless changed, with small numbers."""
    small = {
        "backbone": "resnet10t",
        "backbone_weights": "none",
        "backbone_args": {"channels": [8, 16, 24, 32], "stem_width": 8},
        "hidden_dim": 32,
        "nheads": 4,
        "dim_feedforward": 48,
        "enc_layers": 1,
        "dec_layers": 2,
        "enc_n_points": 2,
        "dec_n_points": 2,
        "num_queries": 12,
        "num_select": 10,
        "dn_number": 6,
        "fed_num_sample_cats": 4,
        "amp": False,
    }
    return Config(**{**small, **changes})


def baseline_config(**changes) -> Config:
    """The same without CLIP."""
    return tiny_config(use_language=False, use_visual_distill=False, **changes)


def make_images(
    sizes: Sequence[tuple[int, int]] = SIZES, seed: int = 0, dtype: torch.dtype = torch.float32
) -> PaddedImages:
    """Noise, padded to the largest."""
    generator = torch.Generator().manual_seed(seed)
    return PaddedImages.from_list([torch.randn(3, h, w, generator=generator, dtype=dtype) for h, w in sizes])


def target(
    boxes: Sequence[Sequence[float]] = (),
    labels: Sequence[int] = (),
    image_level: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Target:
    """A target from lists."""
    return Target(
        torch.tensor(boxes, dtype=dtype).view(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        1,
        SIZES[0],
        SIZES[0],
        image_level,
    )


def batch_of(*images: Target) -> Targets:
    """The targets of a batch of these images."""
    return Targets.from_list(images)


def targets(
    counts: Sequence[int] = (2, 1),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    image_level: bool = False,
    classes: int = len(NAMES),
) -> Targets:
    """Random boxes inside the images, so many in each."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for count in counts:
        size = 0.1 + 0.4 * torch.rand(count, 2, generator=generator)
        centre = size / 2 + (1 - size) * torch.rand(count, 2, generator=generator)
        labels = torch.randint(classes, (count,), generator=generator)
        made.append(
            target(
                torch.cat((centre, size), 1).tolist(), labels.tolist(), image_level=image_level, dtype=dtype
            )
        )
    return Targets.from_list(made)


def pyramid(
    shapes: Sequence[tuple[int, int]], dim: int = 32, mask: Tensor | None = None, seed: int = 0
) -> Pyramid:
    """Random float64 tokens on the given levels; mask (B, H, W) of the image, none padded without it."""
    generator = torch.Generator().manual_seed(seed)
    if mask is None:
        mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    levels = [torch.randn(len(mask), dim, h, w, generator=generator).double() for h, w in shapes]
    tokens = torch.cat([x.flatten(2) for x in levels], dim=2).transpose(1, 2)
    padding = token_mask(mask, tuple(shapes))
    ratios = valid_ratios(padding, cells(tuple(shapes), mask.device, torch.float64))
    return Pyramid(tokens, torch.zeros_like(tokens), padding, tuple(shapes), ratios)


def clip_settings(kind: str = "resnet") -> dict:
    """open_clip's JSON configuration of a CLIP of a few hundred thousand weights, most of them words."""
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
    if kind == "vit":
        vision = {"image_size": 48, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    return {"embed_dim": EMBEDDING, "vision_cfg": vision, "text_cfg": text}


def tiny_clip(kind: str = "resnet") -> nn.Module:
    """A frozen CLIP of random weights: an attention-pooled ResNet, or with 'vit' a vision transformer.

    A copy of its own for every caller: what one test does to its precision is not to reach the next.
    """
    return copy.deepcopy(_tiny_clip(kind))


@cache
def _tiny_clip(kind: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = open_clip.CLIP(**clip_settings(kind))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # fresh statistics and zero weights would hide mistakes
                nn.init.uniform_(module.running_mean, -0.1, 0.1)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
    return freeze(model)


@cache
def tokenizer():
    """OpenAI's tokenizer."""
    return open_clip.get_tokenizer("RN50")


def clip_parts(kind: str = "resnet") -> Clip:
    """The tiny CLIP as the builder wants it."""
    return Clip(tiny_clip(kind), tokenizer())


def build(config: Config, cache_dir, seed: int = 0, **arguments) -> ModelParts:
    """All parts of a tiny run of NAMES, from fixed random weights, in training mode."""
    torch.manual_seed(seed)
    if config.use_language:
        arguments = {"clip": clip_parts(), **arguments}
    config = Config.from_dict({**config.to_dict(), "text_cache_dir": str(cache_dir)})
    parts = build_model(config, NAMES, COUNTS, **arguments)
    parts.model.train()
    return parts
