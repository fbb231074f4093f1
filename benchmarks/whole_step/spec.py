"""What a side is to do, and on what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

CLASSES = 1203


@dataclass(frozen=True)
class Spec:
    """What a side is to do.

    side: 'richsem', of the revision in the folder `tree`, or 'transformers': its Deformable DETR.
    what: 'step', 'inference' (of a batch, boxes on the CPU), or 'criterion' (heads, matching, losses and
        their backward pass on what the decoder said once).
    options: of config/RichSem/richsem_4scale.py.  autocast: a 16-bit type for transformers.
    small: a tiny model, to try the benchmark.
    """

    side: str
    what: str
    tree: str
    height: int
    width: int
    batch: int = 2
    boxes: int = 10
    options: dict[str, Any] = field(default_factory=dict)
    autocast: str = ""
    device: str = "cpu"
    threads: int = 0
    teacher: bool = True
    small: bool = False


SMALL = {
    "hidden_dim": 32,
    "nheads": 2,
    "dim_feedforward": 64,
    "enc_layers": 1,
    "dec_layers": 2,
    "num_queries": 20,
    "dn_number": 4,
    "backbone": "resnet18.a1_in1k",
}


def random_batch(spec: Spec, numbers: torch.Generator) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """uint8 images (B, 3, H, W), and boxes (N, 4) as cx cy w h in 0..1 with labels (N,) of each."""
    shape = (spec.batch, 3, spec.height, spec.width)
    pixels = torch.randint(0, 256, shape, generator=numbers, dtype=torch.uint8)
    targets = []
    for _ in range(spec.batch):
        boxes = torch.rand(spec.boxes, 4, generator=numbers) * 0.3 + torch.tensor([0.3, 0.3, 0.05, 0.05])
        targets.append((boxes, torch.randint(0, CLASSES, (spec.boxes,), generator=numbers)))
    return pixels, targets
