"""Argument checks of the op. Every error is one line that names the argument.

They come before `functional.py` converts types, for kernels and reference alike. `src/call.h` checks again
what the kernels read through pointers, because operators can also be called directly through `torch.ops`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_value(value: Tensor, shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """`shapes` as a list of pairs of ints.

    Raises:
        TypeError: `value` is not floating, or a size is not an int. Reading sizes from a tensor would
            synchronise with the GPU on every call.
        ValueError: `value` is not (B, S, H, C), or `shapes` do not hold S pixels.
    """
    if value.dtype not in _FLOATING:
        raise TypeError(
            f"ms_deform_attn: value must be float32, float64, float16 or bfloat16, not {value.dtype}"
        )
    if value.dim() != 4:
        raise ValueError(f"ms_deform_attn: value must be (B, S, H, C), not {tuple(value.shape)}")
    if isinstance(shapes, Tensor) or any(isinstance(size, Tensor) for shape in shapes for size in shape):
        raise TypeError("ms_deform_attn: shapes must hold Python ints, not tensors")
    pairs: list[Any] = [tuple(shape) for shape in shapes]
    if not pairs or any(len(pair) != 2 or pair[0] < 0 or pair[1] < 0 for pair in pairs):
        raise ValueError(f"ms_deform_attn: shapes must be a non-empty list of (height, width), not {pairs}")
    tokens = sum(height * width for height, width in pairs)
    if tokens != value.shape[1]:
        raise ValueError(
            f"ms_deform_attn: shapes hold {tokens} pixels but value has S = {value.shape[1]} tokens"
        )
    return pairs


def check_argument(
    name: str, tensor: Tensor, shape: tuple[int, ...], value: Tensor, positions: bool = False
) -> None:
    """Raise unless `tensor` is floating (`padding_mask`: bool), on the device of `value`, and of `shape`.

    Positions must not come in 16 bit: bfloat16 moves a sample by a third of a pixel.
    """
    dtype = tensor.dtype
    if name == "padding_mask":
        if dtype != torch.bool:
            raise TypeError(f"ms_deform_attn: padding_mask must be bool (True = padding), not {dtype}")
    elif not dtype.is_floating_point:
        raise TypeError(f"ms_deform_attn: {name} must be floating, not {dtype}")
    elif positions and dtype in (torch.float16, torch.bfloat16):
        raise TypeError(f"ms_deform_attn: {name} must be float32 or float64, not {dtype}: it holds positions")
    if tensor.device != value.device:
        raise ValueError(f"ms_deform_attn: {name} is on {tensor.device} but value is on {value.device}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"ms_deform_attn: {name} must be {shape}, not {tuple(tensor.shape)}")
    if 0 in shape[3:]:
        raise ValueError(f"ms_deform_attn: {name} {shape} hold no point")
