"""The federated loss: only some classes of an image set are judged (Zhou et al. 2021, Detic)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from util import distributed


class FederatedClasses(nn.Module):
    """Draws the class columns that a loss call looks at.

    The classes present in the call, filled up to `number` with others drawn with probability
    proportional to (training images)^0.5 (official `use_fed_loss`, `fed_num_sample_cats`). Classes of
    weight 0 (a column without a class) are never drawn.

    gather: take the classes present on any rank, not only on this one; rank 0's draw then counts for all.
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float], number: int, gather: bool = False):
        super().__init__()
        if min(weights) < 0:
            raise ValueError("federated class weights must not be negative")
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), persistent=False)
        self.number = number
        self.gather = gather

    def forward(self, labels: Int64[Tensor, " K"]) -> Int64[Tensor, " M"]:
        """(K,) labels of the call's targets -> (M,) sorted class columns."""
        if self.gather:
            present = torch.zeros_like(self.weights, dtype=torch.float32)
            present[labels] = 1
            present = distributed.all_reduce_mean(present) > 0
        else:
            present = torch.zeros_like(self.weights, dtype=torch.bool)
            present[labels] = True
        drawn = present.clone()
        candidates = self.weights.masked_fill(present, 0).cpu()
        missing = min(self.number - int(present.sum()), int((candidates > 0).sum()))
        if missing > 0:
            # From the global generator, whose state a checkpoint keeps.
            extra = torch.multinomial(candidates, missing)
            if self.gather:
                extra = distributed.broadcast_object(extra)
            drawn[extra.to(drawn.device)] = True
        return drawn.nonzero().squeeze(1)


def federated_weights(image_counts: Sequence[int]) -> list[float]:
    """Square root of the number of training images of each class; a column without a class has 0."""
    return [float(count) ** 0.5 for count in image_counts]
