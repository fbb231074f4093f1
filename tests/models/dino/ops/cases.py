"""Inputs of the op for its tests: small, random, and odd in the ways that break kernels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.dino.ops.reference import sampling_locations


@dataclass(frozen=True)
class Case:
    """Arguments of both forms that mean the same; float64 on the CPU until `to` says otherwise."""

    shapes: list[tuple[int, int]]
    value: Tensor
    offsets: Tensor
    logits: Tensor
    reference_points: Tensor
    mask: Tensor | None

    @property
    def locations(self) -> Tensor:
        return sampling_locations(self.shapes, self.offsets, self.reference_points)

    @property
    def weights(self) -> Tensor:
        return self.logits.softmax(-1).view(self.offsets.shape[:-1])

    def to(self, dtype: torch.dtype, device: str = "cpu") -> "Case":
        """Value, offsets and logits in `dtype`; reference points as the op wants them."""
        precise = torch.float64 if dtype == torch.float64 else torch.float32
        return Case(
            self.shapes,
            self.value.to(device, dtype),
            self.offsets.to(device, dtype),
            self.logits.to(device, dtype),
            self.reference_points.to(device, precise),
            None if self.mask is None else self.mask.to(device),
        )


def make_case(
    shapes=((9, 14), (5, 7), (3, 4), (2, 2)),
    batch=2,
    queries=37,
    heads=4,
    channels=32,
    points=4,
    columns=2,
    masked=False,
    seed=0,
) -> Case:
    """A case whose samples fall inside, across the border and outside."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    shapes = [tuple(shape) for shape in shapes]
    tokens, levels = sum(h * w for h, w in shapes), len(shapes)
    reference = torch.rand((batch, queries, levels, columns), generator=generator, dtype=torch.float64)
    mask = torch.rand((batch, tokens), generator=generator) < 0.3 if masked else None
    return Case(
        shapes,
        normal(batch, tokens, heads, channels),
        3 * normal(batch, queries, heads, levels, points, 2),
        2 * normal(batch, queries, heads, levels * points),
        reference,
        mask,
    )
