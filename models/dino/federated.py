"""The federated loss: each call looks at a sample of the classes (Zhou et al. 2021, Detic)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from util import distributed


@dataclass(frozen=True)
class ClassSample:
    """The class columns that a loss looks at. Their number is known without asking the device.

    columns: (..., M) int64, all different.  valid: (..., M) bool; the loss ignores the others.
    """

    columns: Int64[Tensor, "*sets M"]
    valid: Bool[Tensor, "*sets M"]

    def __getitem__(self, index: int) -> ClassSample:
        """Those of one set."""
        return ClassSample(self.columns[index], self.valid[index])


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

    def forward(
        self, labels: Int64[Tensor, "S K"], most: int, candidates: Bool[Tensor, " C"] | None = None
    ) -> ClassSample:
        """Draws for S losses at once, each its own.

        labels: of what each of them is taught.  most: bounds how many different ones there are in a row.
        candidates: the classes that may fill up the sample; None for all.

        The classes with the largest w / Exp(1) are a draw without replacement with probabilities
        proportional to w (Efraimidis and Spirakis 2006), and need nothing of the host. The random numbers are
        those of the device's generator, whose state a checkpoint keeps.
        """
        present = labels.new_zeros((len(labels), len(self.weights)), dtype=torch.float32)
        present = present.scatter(1, labels, 1.0)
        weights = self.weights if candidates is None else self._weights_of(candidates)
        keys = weights / torch.empty_like(present).exponential_()
        if self.gather:
            most = sum(distributed.all_gather_object(most))
            present = distributed.all_reduce_mean(present)
            keys = distributed.broadcast(keys)
        present = present > 0
        # Present classes come first. A key is finite unless its random number is zero.
        keys = torch.where(present, torch.inf, keys.clamp(max=torch.finfo(keys.dtype).max))
        keys, columns = keys.topk(min(max(self.number, most), keys.shape[1]), dim=1)
        rank = torch.arange(columns.shape[1], device=columns.device)
        return ClassSample(columns, (keys > 0) & ((rank < self.number) | keys.isinf()))

    def _weights_of(self, candidates: Bool[Tensor, " C"]) -> Tensor:
        """0 for classes that are none, on any rank where all take part in a draw."""
        share = candidates.to(self.weights.dtype)
        if self.gather:
            share = distributed.all_reduce_mean(share)
        return torch.where(share > 0, self.weights, 0)


def federated_weights(image_counts: Sequence[int]) -> list[float]:
    """Square root of the number of training images of each class; a column without a class has 0."""
    return [float(count) ** 0.5 for count in image_counts]
