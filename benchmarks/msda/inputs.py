"""Inputs of the deformable attention benchmark: the shapes of a detector, sampled near or anywhere."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.dino.ops.reference import sampling_locations

LOCAL, UNIFORM = "local", "uniform"
# Samples nearer to a pixel's border are moved: there a rounding error turns the gradient into another number,
# whoever computes it.
_SEAM = 2e-3


@dataclass(frozen=True)
class Workload:
    """Sizes of one case.

    shapes: (height, width) of the levels.  queries: None means one per token, as in an encoder.
    """

    shapes: tuple[tuple[int, int], ...]
    dim: int
    heads: int
    points: int
    queries: int | None

    @property
    def tokens(self) -> int:
        return sum(height * width for height, width in self.shapes)


# An 800 x 1333 image at strides 8 to 64; 900 queries and 200 denoising slots.
_IMAGE = ((100, 167), (50, 84), (25, 42), (13, 21))
# The quickstart's 160 pixels.
_MINI = ((20, 20), (10, 10), (5, 5))
WORKLOADS = {
    "encoder": Workload(_IMAGE, 256, 8, 4, None),
    "decoder": Workload(_IMAGE, 256, 8, 4, 1100),
    "mini_encoder": Workload(_MINI, 128, 4, 4, None),
    "mini_decoder": Workload(_MINI, 128, 4, 4, 100),
}


@dataclass(frozen=True)
class Inputs:
    """Arguments of one call, plain or fused (then `reference` is there).

    value (B, S, H, C); positions (B, Q, H, L, P, 2): locations, or offsets; attention: weights
    (B, Q, H, L, P), or logits (B, Q, H, L * P); reference (B, Q, L, 2 or 4).
    """

    shapes: tuple[tuple[int, int], ...]
    value: Tensor
    positions: Tensor
    attention: Tensor
    reference: Tensor | None

    @property
    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        """What gradients are taken of."""
        return self.value, self.positions, self.attention

    def to(self, dtype: torch.dtype) -> Inputs:
        """The same numbers in another type, as leaves of their own."""
        own = [x.detach().to(dtype).requires_grad_(x.requires_grad) for x in self.leaves]
        return Inputs(self.shapes, *own, None if self.reference is None else self.reference.to(dtype))

    def plain(self) -> tuple[Tensor, Tensor]:
        """Locations and weights, as all but us need them: PyTorch makes them from the fused form."""
        if self.reference is None:
            return self.positions, self.attention
        weights = self.attention.softmax(-1).view(self.positions.shape[:-1])
        return sampling_locations(list(self.shapes), self.positions, self.reference), weights

    def trainable(self) -> Inputs:
        """The same with gradients wanted."""
        own = [x.detach().requires_grad_() for x in self.leaves]
        return Inputs(self.shapes, *own, self.reference)


@functools.cache
def level_tensors(shapes: tuple[tuple[int, int], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Level shapes (L, 2) and first tokens (L) in the device's memory."""
    sizes = torch.tensor(shapes, device=device)
    counts = sizes.prod(1)
    return sizes, counts.cumsum(0) - counts


def make_inputs(
    workload: Workload,
    where: str,
    *,
    fused: bool,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    seed: int = 0,
    device: str = "cpu",
) -> Inputs:
    """Random inputs.

    Args:
        where: `LOCAL`: around the query's own place, as a network that starts out, with 2 pixels of noise;
            `UNIFORM`: anywhere.
        fused: raw offsets, logits and reference points (boxes where queries are no tokens), else locations
            and weights.
        dtype: of the value and, in the fused form, of offsets and logits.
    """
    generator = torch.Generator(device).manual_seed(seed)
    options = {"generator": generator, "device": device}
    shapes, heads, points = workload.shapes, workload.heads, workload.points
    levels, tokens = len(shapes), workload.tokens
    queries = tokens if workload.queries is None else workload.queries
    value = torch.randn(batch, tokens, heads, workload.dim // heads, **options)
    logits = torch.randn(batch, queries, heads, levels * points, **options)
    reference = _reference(workload, where, batch, options)
    size = (batch, queries, heads, levels, points, 2)
    if where == UNIFORM:
        sizes = torch.tensor(shapes, device=device).flip(-1)[:, None]
        scale = 2 * points if reference.shape[-1] == 4 else sizes
        offsets = (torch.rand(size, **options) - reference[:, :, None, :, None, :2]) * scale
    else:
        offsets = _directions(heads, points).to(device)[:, None] + 2 * torch.randn(size, **options)
        if reference.shape[-1] == 4:
            offsets = offsets / 2
    offsets = _away_from_seams(offsets.to(dtype), shapes, reference, generator)
    if fused:
        return Inputs(shapes, value.to(dtype), offsets, logits.to(dtype), reference)
    locations = sampling_locations(list(shapes), offsets, reference)
    weights = logits.softmax(-1).view(size[:-1])
    return Inputs(shapes, value.to(dtype), locations.contiguous(), weights, None)


def _reference(workload: Workload, where: str, batch: int, options: dict) -> Tensor:
    """Centres of the tokens, or random boxes. Where samples fall anywhere: random points, wide boxes."""
    device, levels = options["device"], len(workload.shapes)
    queries = workload.tokens if workload.queries is None else workload.queries
    if workload.queries is None and where == LOCAL:
        centres = []
        for height, width in workload.shapes:
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            centres.append(torch.stack([(x + 0.5) / width, (y + 0.5) / height], -1).flatten(0, 1))
        return torch.cat(centres)[None, :, None].repeat(batch, 1, levels, 1).to(device)
    reference = torch.rand(batch, queries, 2, **options)
    if workload.queries is not None:
        size = torch.rand(batch, queries, 2, **options)
        size = 0.05 + 0.25 * size if where == LOCAL else torch.ones_like(size)
        reference = torch.cat([reference, size], -1)
    return reference[:, :, None].repeat(1, 1, levels, 1)


def _directions(heads: int, points: int) -> Tensor:
    """(H, P, 2): head h looks in its own direction, point p at p + 1 pixels."""
    angles = torch.arange(heads) * (2 * math.pi / heads)
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    return directions[:, None] * torch.arange(1, points + 1)[:, None]


def _away_from_seams(offsets: Tensor, shapes, reference: Tensor, generator: torch.Generator) -> Tensor:
    sizes = torch.tensor(shapes, device=offsets.device).flip(-1)[:, None]
    for _ in range(4):
        pixels = sampling_locations(list(shapes), offsets, reference) * sizes - 0.5
        near = (pixels - pixels.round()).abs() < _SEAM
        push = torch.rand(offsets.shape, generator=generator, device=offsets.device) + 0.5
        offsets = torch.where(near, offsets + (push * (0.3 + offsets.abs() / 64)).to(offsets.dtype), offsets)
    return offsets
