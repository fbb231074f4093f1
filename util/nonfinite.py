"""Tensors with values that are not finite."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def first_nonfinite(state: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds an infinity or a NaN; None where all are finite.

    One norm over all tensors and one number from the GPU, unless there is something to name.
    """
    floating = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    if not floating or nn.utils.get_total_norm(floating.values()).isfinite():
        return None
    # Large finite values overflow the norm too.
    return next((name for name, tensor in floating.items() if not tensor.isfinite().all()), None)
