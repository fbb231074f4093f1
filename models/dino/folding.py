"""Frozen batch norms folded into the convolutions before them, in training too.

A frozen batch norm multiplies each channel by a constant and adds another. The convolution before it does
both for nothing with scaled weights and a bias: fewer operators, no second map to save, the same gradients.
Modules and their names stay as they are; scaled weights take their place during a call (`torch.func`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.ops import FrozenBatchNorm2d

from models.dino.kept import identity
from models.dino.sixteen_bit import autocast_type, sixteen_bit

Tensors = tuple[Tensor, ...]

# (height, width) of the noise on which folding is tried, and the largest difference, of the largest value.
_TRIAL, _TOLERANCE = (64, 96), 1e-4


class FoldableNorm(FrozenBatchNorm2d):
    """Does nothing where its weight is taken away: the convolution before it has done its work."""

    @classmethod
    def of(cls, norm: FrozenBatchNorm2d) -> FoldableNorm:
        """The same norm, its tensors shared."""
        result = cls(len(norm.weight), norm.eps)
        for name, buffer in norm.named_buffers():
            setattr(result, name, buffer)
        return result

    def forward(self, x: Tensor) -> Tensor:
        return x if self.weight is None else super().forward(x)


@dataclass(frozen=True)
class Fold:
    """Names of a convolution without bias and of the norm that follows it."""

    convolution: str
    norm: str


class _Scaled(torch.autograd.Function):
    """Weights times the scales of their output channels, in `dtype`; gradients in the weights' own type."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, scales: Tensors, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.scales = scales
        return _as(torch._foreach_mul(weights, scales), dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        given = [(i, g) for i, g in enumerate(gradients) if g is not None and ctx.needs_input_grad[i + 2]]
        result: list[Tensor | None] = [None] * len(gradients)
        if given:
            scales = tuple(ctx.scales[i] for i, _ in given)
            whole = torch._foreach_mul(_as(tuple(g for _, g in given), scales[0].dtype), scales)
            for (i, _), gradient in zip(given, whole, strict=True):
                result[i] = gradient
        return None, None, *result


def _as(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    """In another type, with one operator; themselves where they are of it."""
    if all(t.dtype == dtype for t in tensors):
        return tensors
    copies = tuple(torch.empty_like(t, dtype=dtype) for t in tensors)
    torch._foreach_copy_(copies, tensors)
    return copies


def make_foldable(body: nn.Module) -> tuple[Fold, ...]:
    """Finds the frozen batch norms of `body` that come right after a convolution, and makes them foldable.

    Empty where folding them all gives something else, as where modules do not follow one another in the order
    in which they are registered, and for a body without memory (of the device meta).
    """
    folds = []
    for prefix, parent in list(body.named_modules()):
        before: tuple[str, nn.Module] = ("", parent)
        for name, child in list(parent.named_children()):
            path = f"{prefix}.{name}" if prefix else name
            if isinstance(child, FrozenBatchNorm2d) and _fits(before[1], child):
                setattr(parent, name, FoldableNorm.of(child))
                folds.append(Fold(before[0], path))
            before = _last(path, child)
    return tuple(folds) if folds and _same(body, folds) else ()


def _last(path: str, module: nn.Module) -> tuple[str, nn.Module]:
    """What runs last in a sequence."""
    while isinstance(module, nn.Sequential) and len(module):
        name, module = list(module.named_children())[-1]
        path = f"{path}.{name}"
    return path, module


def _fits(convolution: nn.Module, norm: FrozenBatchNorm2d) -> bool:
    return (
        isinstance(convolution, nn.Conv2d)
        and convolution.bias is None
        and convolution.out_channels == len(norm.weight)
    )


@torch.no_grad()
def _same(body: nn.Module, folds: Sequence[Fold]) -> bool:
    """Whether folding changes nothing, whatever the norms' numbers: theirs may be as they were made."""
    device = next(body.parameters()).device
    if device.type == "meta":
        return False
    generator = torch.Generator().manual_seed(0)
    trial = copy.deepcopy(body).eval()
    for fold in folds:
        for buffer in trial.get_submodule(fold.norm).buffers():
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    x = torch.rand((1, 3, *_TRIAL), generator=generator).to(device)
    pairs = zip(trial(x), call_folded(trial, folds, x), strict=True)
    return all((a - b).abs().max() <= _TOLERANCE * a.abs().max() for a, b in pairs)


def call_folded(body: nn.Module, folds: Sequence[Fold], x: Tensor) -> Any:
    """`body(x)` with folded norms; under autocast with 16-bit copies of all weights that it would cast."""
    return functional_call(body, folded_parameters(body, folds, x), (x,), tie_weights=False)


def folded_parameters(body: nn.Module, folds: Sequence[Fold], x: Tensor) -> dict[str, Tensor]:
    """What takes the place of parameters and buffers, by name."""
    dtype = autocast_type(x.device)
    result: dict[str, Tensor | None] = {}
    scales, shifts = _scales_and_shifts([cast(Any, body.get_submodule(f.norm)) for f in folds])
    weights = {f"{f.convolution}.weight": s.view(-1, 1, 1, 1) for f, s in zip(folds, scales, strict=True)}
    parameters = dict(body.named_parameters())
    for names in _by_part(weights):
        whole = [parameters[name] for name in names]
        target = whole[0].dtype if dtype is None else dtype
        result.update(
            zip(names, _Scaled.apply(target, tuple(weights[n] for n in names), *whole), strict=True)
        )
    for fold, shift in zip(folds, _as(shifts, dtype or shifts[0].dtype) if folds else (), strict=True):
        result |= {f"{fold.convolution}.bias": shift, f"{fold.norm}.weight": None}
    if dtype is not None:
        others = {n: p for n, p in _cast_by_autocast(body).items() if n not in result}
        for names in _by_part(others):
            result.update(sixteen_bit({name: others[name] for name in names}, dtype))
    return cast(dict[str, Tensor], result)


class KeptParameters:
    """`call_folded` of a body that does not train now: `folded_parameters` are computed again only where its
    tensors have changed.

    An optimizer may change weights unnoticed: `forget` what is kept where it may have done so.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._state: Any = None
        self._parameters: dict[str, Tensor] = {}

    def __deepcopy__(self, memo: dict) -> KeptParameters:
        return KeptParameters()

    def __call__(self, body: nn.Module, folds: Sequence[Fold], x: Tensor) -> Any:
        """As `call_folded`."""
        return functional_call(body, self._of(body, folds, x), (x,), tie_weights=False)

    @torch.no_grad()
    def _of(self, body: nn.Module, folds: Sequence[Fold], x: Tensor) -> dict[str, Tensor]:
        tensors = chain(body.parameters(), body.buffers())
        state = autocast_type(x.device), [identity(t) for t in tensors]
        if self._state != state:
            parameters = folded_parameters(body, folds, x)
            # On a CPU convolutions alone are faster in channels-last order, in float32 too.
            self._parameters = {n: _fast_order(p) for n, p in parameters.items()}
            self._state = state
        return self._parameters


def _fast_order(parameter: Tensor | None) -> Any:
    if parameter is None or parameter.device.type != "cpu" or parameter.dim() != 4:
        return parameter
    return parameter.contiguous(memory_format=torch.channels_last)


def _scales_and_shifts(norms: Sequence[Any]) -> tuple[Tensors, Tensors]:
    """x * scale + shift is what each norm computes."""
    if not norms:
        return (), ()
    scales = torch._foreach_add([n.running_var for n in norms], [n.eps for n in norms])
    torch._foreach_rsqrt_(scales)
    torch._foreach_mul_(scales, [n.weight for n in norms])
    moved = torch._foreach_mul([n.running_mean for n in norms], scales)
    return scales, torch._foreach_sub([n.bias for n in norms], moved)


def _cast_by_autocast(body: nn.Module) -> dict[str, nn.Parameter]:
    """Float32 parameters of convolutions and linear layers."""
    kinds = (nn.Conv2d, nn.Linear)
    return {
        f"{prefix}.{name}" if prefix else name: parameter
        for prefix, module in body.named_modules()
        if isinstance(module, kinds)
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.dtype == torch.float32
    }


def _by_part(names: Iterable[str]) -> list[list[str]]:
    """Names of each child of the body: ranks exchange the gradients of one while others are computed."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.split(".")[0], []).append(name)
    return list(groups.values())
