"""Work that a GPU does beside what its current stream does."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


def beside(compute: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Tensor]:
    """Starts `compute(x)` on a stream of its own, after the work that the current stream has been given.

    Returns what gives the result: whichever stream asks waits for it, the host does not. On a CPU, and in a
    traced graph, the result is there already.
    """
    if x.device.type != "cuda" or torch.compiler.is_compiling():
        result = compute(x)
        return lambda: result
    stream = _side_stream(x.device)
    stream.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(stream):
        result = compute(x)
        done = stream.record_event()
    # Its memory is not used again before the side stream is through with it.
    x.record_stream(stream)

    def get() -> Tensor:
        current = torch.cuda.current_stream(x.device)
        current.wait_event(done)
        # Likewise: it is the side stream's memory.
        result.record_stream(current)
        return result

    return get


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
