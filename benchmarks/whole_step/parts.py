"""Where the time of a step goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


class Parts:
    """Seconds of a step's parts. A mark ends one part and begins the next.

    Forward parts begin and end with their modules. Backward parts begin where a gradient reaches what the
    part said; on a GPU each mark waits for it.
    """

    def __init__(self, synchronise: Callable[[], None]) -> None:
        self.seconds: Counter[str] = Counter()
        self._synchronise, self._stack = synchronise, ["other"]
        self._part, self._began = "other", 0.0

    def mark(self, name: str) -> None:
        self._synchronise()
        now = time.perf_counter()
        self.seconds[self._part] += now - self._began if self._began else 0.0
        self._part, self._began = name, now

    @contextmanager
    def watching(self, modules: dict[str, nn.Module], optimizer: Optimizer | None) -> Iterator[None]:
        """Marks the modules' parts, clipping and the optimizer inside the block."""
        handles = []
        for name, module in modules.items():
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: self._enter(name)))
            handles.append(
                module.register_forward_hook(lambda _, __, output, name=name: self._leave(name, output))
            )
        if optimizer is not None:
            handles.append(optimizer.register_step_pre_hook(lambda *_: self.mark("optimizer")))
            handles.append(optimizer.register_step_post_hook(lambda *_: self.mark("other")))
        clip = nn.utils.clip_grad_norm_

        def marked(*arguments: Any, **keywords: Any) -> Tensor:
            self.mark("clipping")
            return clip(*arguments, **keywords)

        nn.utils.clip_grad_norm_ = marked
        try:
            self.mark("other")
            yield
            self.mark("other")
        finally:
            nn.utils.clip_grad_norm_ = clip
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> None:
        self._stack.append(self._part)
        self.mark(name)

    def _leave(self, name: str, output: Any) -> None:
        self.mark(self._stack.pop())
        for tensor in tensors_in(output):
            if tensor.requires_grad:
                tensor.register_hook(lambda _, name=name: self.mark(f"backward {name}"))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors of a module's output."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            yield from tensors_in(getattr(value, f.name))
