"""Exponential moving average of a model's weights."""

import copy

import torch
from torch import Tensor, nn

Pairs = list[tuple[Tensor, Tensor]]


class Ema:
    """A shadow of a model, for evaluation: shadow <- decay * shadow + (1 - decay) * model.

    Buffers and weights that do not train are copied. `module` is the shadow, in evaluation mode.

    decay: the official `ema_decay`.
    ramp: the decay of update t (from 0) is min(decay, (1 + t) / (10 + t)), so that the first weights are
        soon forgotten (`ema_warmup`).
    """

    def __init__(self, model: nn.Module, decay: float, ramp: bool = False) -> None:
        self.decay = decay
        self.ramp = ramp
        self.updates = 0
        self.module = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """One step of the average. `model` has the parameters and buffers the shadow was made from."""
        decay = self.decay
        if self.ramp:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averaged, copied = _split(self.module, model)
        if averaged:
            shadows, values = zip(*averaged, strict=True)
            torch._foreach_lerp_(list(shadows), list(values), 1.0 - decay)
        _copy(copied)

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Becomes a copy of `model`: before the average starts (`ema_epoch`)."""
        averaged, copied = _split(self.module, model)
        _copy(averaged + copied)

    def state_dict(self) -> dict:
        return {"model": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        self.module.load_state_dict(state["model"])
        self.updates = int(state["updates"])


def _split(shadow: nn.Module, model: nn.Module) -> tuple[Pairs, Pairs]:
    """Pairs (shadow, model) of the trainable parameters, and of everything else."""
    pairs = list(zip(shadow.parameters(), model.parameters(), strict=True))
    averaged = [(s.data, m.data) for s, m in pairs if m.requires_grad]
    copied = [(s.data, m.data) for s, m in pairs if not m.requires_grad]
    return averaged, copied + list(zip(shadow.buffers(), model.buffers(), strict=True))


def _copy(pairs: Pairs) -> None:
    if pairs:
        targets, sources = zip(*pairs, strict=True)
        torch._foreach_copy_(list(targets), list(sources))
