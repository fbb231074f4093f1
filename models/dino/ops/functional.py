"""The op as functions: check the arguments, then run the compiled kernels or the reference."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from . import extension, library
from .checks import check_argument, check_value
from .reference import ms_deform_attn_fused_reference, ms_deform_attn_reference

# The CUDA kernels take level shapes by value; with more levels than this the reference runs.
_MAX_LEVELS = {"cuda": 64}
_kernels_allowed = True


def ms_deform_attn(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Multi-scale deformable attention on given locations and weights.

    Args:
        value: (B, S, H, C), the levels flattened row by row and concatenated.
        shapes: (height, width) of each of the L levels, as Python ints.
        locations: (B, Q, H, L, P, 2), (x, y) in 0..1 of each level, float32 or float64. Pixels outside
            a level count as zero, and so does a sample whose location is NaN.
        weights: (B, Q, H, L, P).

    Returns:
        (B, Q, H * C) in the type of `value` (under autocast: in autocast's); sums are taken in float32, or
        float64 for float64 values.

    Raises:
        TypeError, ValueError: one line that names the argument of a wrong type, shape or device.
    """
    shapes = check_value(value, shapes)
    if locations.dim() != 6:
        raise ValueError(
            f"ms_deform_attn: locations must be (B, Q, H, L, P, 2), not {tuple(locations.shape)}"
        )
    batch, _, heads, _ = value.shape
    grid = (batch, locations.shape[1], heads, len(shapes), locations.shape[4])
    check_argument("locations", locations, (*grid, 2), value, positions=True)
    check_argument("weights", weights, grid, value)
    dtype = library.acc_dtype(value)
    locations, weights = locations.to(dtype), weights.to(dtype)
    if _has_kernels(value, shapes):
        return library.plain(value, shapes, locations, weights)
    value = value.to(library.autocast_dtype(value))
    return ms_deform_attn_reference(value, shapes, locations, weights)


def ms_deform_attn_fused(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    offsets: Tensor,
    logits: Tensor,
    reference_points: Tensor,
    padding_mask: Tensor | None = None,
) -> Tensor:
    """Multi-scale deformable attention on the raw outputs of the module's projections.

    Softmax, sampling locations and padding mask are part of the op, so normalised locations are never
    stored, in particular not in 16 bit.

    Args:
        value: (B, S, H, C), the levels flattened row by row and concatenated.
        shapes: (height, width) of each of the L levels, as Python ints.
        offsets: (B, Q, H, L, P, 2), (x, y). With reference points: in pixels of the level. With
            reference boxes: in units of half the box's size divided by P.
        logits: (B, Q, H, L * P); the softmax runs over levels and points together.
        reference_points: (B, Q, L, 2) points (x, y) or (B, Q, L, 4) boxes cxcywh, in 0..1; float32 or
            float64.
        padding_mask: (B, S), True where the value is padding and counts as zero.

    Returns:
        (B, Q, H * C) in the type of `value` (under autocast: in autocast's); sums are taken in float32, or
        float64 for float64 values.

    Raises:
        TypeError, ValueError: one line that names the argument of a wrong type, shape or device.
    """
    shapes = check_value(value, shapes)
    if offsets.dim() != 6:
        raise ValueError(f"ms_deform_attn: offsets must be (B, Q, H, L, P, 2), not {tuple(offsets.shape)}")
    batch, _, heads, _ = value.shape
    queries, levels, points = offsets.shape[1], len(shapes), offsets.shape[4]
    check_argument("offsets", offsets, (batch, queries, heads, levels, points, 2), value)
    check_argument("logits", logits, (batch, queries, heads, levels * points), value)
    columns = 4 if reference_points.shape[-1:] == (4,) else 2
    reference_shape = (batch, queries, levels, columns)
    check_argument("reference_points", reference_points, reference_shape, value, positions=True)
    if padding_mask is not None:
        check_argument("padding_mask", padding_mask, tuple(value.shape[:2]), value)
    reference_points = reference_points.to(library.acc_dtype(value))
    if _has_kernels(value, shapes):
        offsets, logits = offsets.to(value.dtype), logits.to(value.dtype)
        return library.fused(value, shapes, offsets, logits, reference_points, padding_mask)
    value = value.to(library.autocast_dtype(value))
    return ms_deform_attn_fused_reference(value, shapes, offsets, logits, reference_points, padding_mask)


@contextmanager
def standard_operators() -> Iterator[None]:
    """Within it the op runs its reference: what is traced here needs no kernels of ours, in any runtime.

    It holds for the whole process, not for one thread.
    """
    global _kernels_allowed  # torch.compile guards globals; it does not know context variables
    before, _kernels_allowed = _kernels_allowed, False
    try:
        yield
    finally:
        _kernels_allowed = before


def _has_kernels(value: Tensor, shapes: Sequence[tuple[int, int]]) -> bool:
    if not _kernels_allowed:
        return False
    kind = value.device.type
    return len(shapes) <= _MAX_LEVELS.get(kind, len(shapes)) and extension.compiled(kind)
