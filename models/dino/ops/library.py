"""The op as PyTorch operators: schema, shapes without data, gradients and autocast.

`torch.ops.richsem.ms_deform_attn` and `torch.ops.richsem.ms_deform_attn_fused` exist as soon as this module
is imported; their kernels come with the compiled extension (`extension.py`). Call them through
`functional.py`.
"""

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("richsem", "FRAGMENT")

_PLAIN = "Tensor value, SymInt[] shapes, Tensor locations, Tensor weights"
_FUSED = (
    "Tensor value, SymInt[] shapes, Tensor offsets, Tensor logits, "
    "Tensor reference_points, Tensor? padding_mask"
)
_GRADIENTS = "(Tensor, Tensor, Tensor)"

_LIBRARY.define(f"ms_deform_attn({_PLAIN}) -> Tensor")
_LIBRARY.define(f"ms_deform_attn_backward(Tensor grad_output, {_PLAIN}) -> {_GRADIENTS}")
_LIBRARY.define(f"ms_deform_attn_fused({_FUSED}) -> Tensor")
_LIBRARY.define(
    f"ms_deform_attn_fused_backward(Tensor grad_output, {_FUSED}, bool pixel_gradients) -> {_GRADIENTS}"
)

_ops = torch.ops.richsem


def acc_dtype(value: Tensor) -> torch.dtype:
    """The type of locations, weights, reference points and sums: float64 for float64 values, else float32."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32


@torch.library.register_fake("richsem::ms_deform_attn")
def _(value, shapes, locations, weights):
    return value.new_empty((value.shape[0], locations.shape[1], value.shape[2] * value.shape[3]))


@torch.library.register_fake("richsem::ms_deform_attn_fused")
def _(value, shapes, offsets, logits, reference_points, padding_mask):
    return value.new_empty((value.shape[0], offsets.shape[1], value.shape[2] * value.shape[3]))


@torch.library.register_fake("richsem::ms_deform_attn_backward")
def _(grad_output, value, shapes, locations, weights):
    return (
        value.new_empty(value.shape),
        locations.new_empty(locations.shape),
        weights.new_empty(weights.shape),
    )


@torch.library.register_fake("richsem::ms_deform_attn_fused_backward")
def _(grad_output, value, shapes, offsets, logits, reference_points, padding_mask, pixel_gradients):
    dtype = acc_dtype(value) if pixel_gradients else offsets.dtype
    grad_positions = offsets.new_empty(offsets.shape, dtype=dtype)
    return value.new_empty(value.shape), grad_positions, logits.new_empty(logits.shape)


def _save_plain(ctx, inputs, output) -> None:
    value, shapes, locations, weights = inputs
    ctx.save_for_backward(value, locations, weights)
    ctx.shapes = shapes


def _plain_backward(ctx, grad_output):
    value, locations, weights = ctx.saved_tensors
    grad_value, grad_locations, grad_weights = _ops.ms_deform_attn_backward(
        grad_output, value, ctx.shapes, locations, weights
    )
    return grad_value, None, grad_locations, grad_weights


def _save_fused(ctx, inputs, output) -> None:
    value, shapes, offsets, logits, reference_points, padding_mask = inputs
    ctx.save_for_backward(value, offsets, logits, reference_points, padding_mask)
    ctx.shapes = shapes


def _fused_backward(ctx, grad_output):
    value, offsets, logits, reference_points, padding_mask = ctx.saved_tensors
    with_reference = ctx.needs_input_grad[4]
    grad_value, grad_offsets, grad_logits = _ops.ms_deform_attn_fused_backward(
        grad_output, value, ctx.shapes, offsets, logits, reference_points, padding_mask, with_reference
    )
    grad_reference = None
    if with_reference:
        grad_offsets, grad_reference = _from_pixels(grad_offsets, ctx.shapes, offsets, reference_points)
    return grad_value, None, grad_offsets, grad_logits, grad_reference, None


def _from_pixels(grad_pixels, shapes, offsets, reference_points):
    """Gradients of offsets and reference points from those of the pixels, (B, Q, H, L, P, 2).

    Reference points rarely have a gradient (a detector detaches them between layers), so the kernels do not
    make it: heads would have to add into the same numbers.
    """
    # Filled on the device: a tensor made of a list would be a copy that waits for the GPU.
    height_width = torch.cat([reference_points.new_full((1,), size) for size in shapes]).view(-1, 2)
    sizes = height_width.flip(-1)  # (L, 2), width first as x is
    grad_points = grad_pixels.sum((2, 4)) * sizes
    if reference_points.shape[-1] == 2:
        return grad_pixels.to(offsets.dtype), grad_points
    unit = 0.5 / offsets.shape[4]
    extents = reference_points[:, :, None, :, None, 2:]
    grad_offsets = grad_pixels * (extents * unit * sizes[:, None, :])
    grad_extents = (grad_pixels * offsets).sum((2, 4)) * (unit * sizes)
    return grad_offsets.to(offsets.dtype), torch.cat([grad_points, grad_extents], -1)


torch.library.register_autograd("richsem::ms_deform_attn", _plain_backward, setup_context=_save_plain)
torch.library.register_autograd("richsem::ms_deform_attn_fused", _fused_backward, setup_context=_save_fused)


def autocast_dtype(value: Tensor) -> torch.dtype:
    """The type `value` takes under the autocast in force; its own when there is none or it is float64."""
    kind = value.device.type
    if value.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return value.dtype
    return torch.get_autocast_dtype(kind)


def _register_autocast(kind: str) -> None:
    """Under autocast the value, offsets and logits run in 16 bit; locations and reference points never do."""
    key = getattr(torch._C.DispatchKey, f"Autocast{kind}")
    without_autocast = torch._C.DispatchKeySet(key)

    def plain(value, shapes, locations, weights):
        value = value.to(autocast_dtype(value))
        with torch._C._ExcludeDispatchKeyGuard(without_autocast):
            return _ops.ms_deform_attn(value, shapes, locations, weights)

    def fused(value, shapes, offsets, logits, reference_points, padding_mask):
        dtype = autocast_dtype(value)
        value, offsets, logits = value.to(dtype), offsets.to(dtype), logits.to(dtype)
        with torch._C._ExcludeDispatchKeyGuard(without_autocast):
            return _ops.ms_deform_attn_fused(value, shapes, offsets, logits, reference_points, padding_mask)

    _LIBRARY.impl("ms_deform_attn", plain, f"Autocast{kind}")
    _LIBRARY.impl("ms_deform_attn_fused", fused, f"Autocast{kind}")


_register_autocast("CPU")
_register_autocast("CUDA")


def plain(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """The plain operator; `shapes` as pairs. Arguments must have passed `functional.ms_deform_attn`."""
    return _ops.ms_deform_attn(value, _flat(shapes), locations, weights)


def fused(
    value: Tensor,
    shapes: list[tuple[int, int]],
    offsets: Tensor,
    logits: Tensor,
    reference_points: Tensor,
    padding_mask: Tensor | None,
) -> Tensor:
    """The fused operator; `shapes` as pairs. Arguments must have passed `functional.ms_deform_attn_fused`."""
    return _ops.ms_deform_attn_fused(value, _flat(shapes), offsets, logits, reference_points, padding_mask)


def _flat(shapes: list[tuple[int, int]]) -> list[int]:
    return [size for shape in shapes for size in shape]


def check_kernels(kind: str) -> None:
    """Raise `RuntimeError` unless the loaded library brought kernels for `kind`, "cpu" or "cuda"."""
    for name in ("ms_deform_attn", "ms_deform_attn_fused"):
        for suffix in ("", "_backward"):
            if not torch._C._dispatch_has_kernel_for_dispatch_key(f"richsem::{name}{suffix}", kind.upper()):
                raise RuntimeError(f"the library holds no {kind} kernel of {name}{suffix}")
