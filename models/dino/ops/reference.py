"""Multi-scale deformable attention in plain PyTorch: the meaning of the op, and its fallback.

Follows Deformable DETR (Zhu et al., ICLR 2021, section 4.1, equation 3). Runs on any device and in any
floating type, differentiates through autograd, and is what the compiled kernels are tested against.

Letters: B batch, S tokens of all levels, Q queries, H heads, C channels per head, L levels, P points.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = list[tuple[int, int]]

# A location this far out lies more than a pixel outside any map: it samples zero and has no gradient.
# Locations are clamped to it so that infinities and NaN never reach an index.
_BEFORE, _BEHIND = -1.0, 2.0


def ms_deform_attn_reference(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted bilinear samples of every level, summed per query and head.

    Args:
        value: (B, S, H, C), the levels flattened row by row and concatenated.
        shapes: (height, width) of each level.
        locations: (B, Q, H, L, P, 2), (x, y) in 0..1 of the level; pixel centres lie at (i + 0.5) / size.
            Pixels outside the map are zero; a NaN location counts as outside.
        weights: (B, Q, H, L, P).

    Returns:
        (B, Q, H * C) in the type of `value`. Arithmetic runs in float32, or float64 for float64 values.
    """
    batch, _, heads, channels = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    working = torch.float64 if value.dtype == torch.float64 else torch.float32
    output = value.new_zeros((batch * heads, channels, queries), dtype=working)
    level_values = value.to(working).split([h * w for h, w in shapes], dim=1)
    for level, ((height, width), level_value) in enumerate(zip(shapes, level_values, strict=True)):
        if height * width == 0:
            continue
        image = level_value.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        location = locations[:, :, :, level].to(working).nan_to_num(_BEFORE, _BEHIND, _BEFORE)
        grid = 2 * location.clamp(_BEFORE, _BEHIND) - 1
        grid = grid.transpose(1, 2).reshape(batch * heads, queries, points, 2)
        sampled = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        weight = (
            weights[:, :, :, level].to(working).transpose(1, 2).reshape(batch * heads, 1, queries, points)
        )
        output = output + (sampled * weight).sum(-1)
    output = output.view(batch, heads * channels, queries).transpose(1, 2).contiguous()
    return output.to(value.dtype)


def sampling_locations(shapes: Shapes, offsets: Tensor, reference_points: Tensor) -> Tensor:
    """Locations in 0..1 from raw offsets, in the type of the reference points.

    Args:
        shapes: (height, width) of each level.
        offsets: (B, Q, H, L, P, 2), (x, y). In pixels of the level when the reference is a point; in units of
            half the box's size divided by P when the reference is a box.
        reference_points: (B, Q, L, 2) points (x, y) or (B, Q, L, 4) boxes cxcywh, in 0..1 of each level.

    Returns:
        (B, Q, H, L, P, 2).
    """
    reference = reference_points[:, :, None, :, None, :]
    offsets = offsets.to(reference_points.dtype)
    if reference_points.shape[-1] == 2:
        levels = zip(offsets.unbind(3), shapes, strict=True)
        scaled = [torch.stack((o[..., 0] / max(w, 1), o[..., 1] / max(h, 1)), -1) for o, (h, w) in levels]
        return reference + torch.stack(scaled, 3)
    points = offsets.shape[4]
    return reference[..., :2] + offsets * (0.5 / points) * reference[..., 2:]


def ms_deform_attn_fused_reference(
    value: Tensor,
    shapes: Shapes,
    offsets: Tensor,
    logits: Tensor,
    reference_points: Tensor,
    padding_mask: Tensor | None = None,
) -> Tensor:
    """The fused form: softmax, locations and padding mask, then `ms_deform_attn_reference`.

    Args:
        value: (B, S, H, C).
        shapes: (height, width) of each level.
        offsets: (B, Q, H, L, P, 2), see `sampling_locations`.
        logits: (B, Q, H, L * P), attention before the softmax over levels and points together.
        reference_points: (B, Q, L, 2) points or (B, Q, L, 4) boxes cxcywh; float32, or float64 with float64
            values.
        padding_mask: (B, S), True where the value is padding and counts as zero.

    Returns:
        (B, Q, H * C) in the type of `value`.
    """
    if padding_mask is not None:
        value = value.masked_fill(padding_mask[:, :, None, None], 0)
    working = torch.float64 if value.dtype == torch.float64 else torch.float32
    weights = logits.to(working).softmax(-1).view(offsets.shape[:-1])
    locations = sampling_locations(shapes, offsets, reference_points.to(working))
    return ms_deform_attn_reference(value, shapes, locations, weights)
