"""IoU of many pairs of a detection (dt) and a box of the ground truth (gt), a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Pairs whose IoU is computed at a time; few enough for their columns to stay in the CPU's cache.
PAIRS_AT_ONCE = 1 << 16


def edges_of(boxes_xywh: np.ndarray) -> np.ndarray:
    """(5, n): left, top, right, bottom, area, rounded as in pycocotools' `bbIou`, which adds x + w."""
    x, y, w, h = boxes_xywh.T
    return np.stack((x, y, w + x, h + y, w * h))


def pair_slices(num_pairs: np.ndarray) -> Iterator[slice]:
    """Slices of detections with about PAIRS_AT_ONCE pairs each; an empty one if there are no detections."""
    total, begin = np.cumsum(num_pairs), 0
    while True:
        done = total[begin - 1] if begin else 0
        end = int(np.searchsorted(total, done + PAIRS_AT_ONCE, "right"))
        end = max(end, min(begin + 1, len(num_pairs)))
        yield slice(begin, end)
        begin = end
        if begin == len(num_pairs):
            return


def expand_pairs(first: np.ndarray, count: np.ndarray, part: slice) -> tuple[np.ndarray, np.ndarray]:
    """(dt, gt) of all pairs of the detections in `part`, each with `count` boxes from `first` on."""
    dt = np.repeat(np.arange(part.start, part.stop), count[part])
    gt = np.repeat(first[part] - np.cumsum(count[part]) + count[part], count[part])
    gt += np.arange(len(gt))
    return dt, gt


def overlapping(
    dt_edges: np.ndarray, gt_edges: np.ndarray, dt: np.ndarray, gt: np.ndarray, crowd: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of columns of (5, n) edges -> (dt, gt, IoU) of those that overlap.

    For a crowd, IoU is the intersection over the detection's area.
    """
    sides: list[np.ndarray] = []
    # Few pairs overlap: each axis sees those that the one before left over.
    for low, high in ((0, 2), (1, 3)):
        side = np.minimum(dt_edges[high].take(dt), gt_edges[high].take(gt))
        side -= np.maximum(dt_edges[low].take(dt), gt_edges[low].take(gt))
        overlap = np.flatnonzero(side > 0)
        dt, gt, sides = dt[overlap], gt[overlap], [s[overlap] for s in (*sides, side)]
    intersection = sides[0] * sides[1]
    dt_area = dt_edges[4].take(dt)
    union = np.where(crowd[gt], dt_area, dt_area + gt_edges[4].take(gt) - intersection)
    return dt, gt, intersection / union
