"""Small helpers on sorted and grouped integer columns."""

from __future__ import annotations

import numpy as np


def positions(sorted_values: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n,) int64: where each of n integers is in `sorted_values`, -1 for one that is not.

    sorted_values: ascending, each once. Values that lie dense enough are looked up in a table, others are
    searched.
    """
    if not len(sorted_values):
        return np.full(len(values), -1)
    low = sorted_values[0]
    span = int(sorted_values[-1]) - int(low) + 1
    if span <= 8 * (len(values) + len(sorted_values)):
        # One free place at either end takes whatever lies outside.
        table = np.full(span + 2, -1)
        table[sorted_values - low + 1] = np.arange(len(sorted_values))
        return table.take(values - low + 1, mode="clip")
    position = np.searchsorted(sorted_values, values).clip(max=len(sorted_values) - 1)
    return np.where(sorted_values[position] == values, position, -1)


def rank_within_group(values: np.ndarray) -> np.ndarray:
    """(n,) int64: 0, 1, 2 ... within each run of equal neighbours."""
    starts = run_starts(values)
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))


def run_starts(values: np.ndarray) -> np.ndarray:
    """Where each run of equal neighbours begins."""
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    return np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1))


def stable_order(values: np.ndarray, count: int) -> np.ndarray:
    """`argsort` of integers 0..count-1 that keeps the order of equal ones; NumPy sorts 16 bits by radix."""
    return np.argsort(values.astype(np.uint16) if count <= 1 << 16 else values, kind="stable")


def topk_per_group(groups: np.ndarray, scores: np.ndarray, count: int, limit: int) -> np.ndarray:
    """(n,) bool: the `limit` highest scores of each group 0..count-1, earlier ones among equals. -1: none."""
    keep = groups >= 0
    sizes = np.bincount(groups[keep], minlength=count)
    crowded = sizes > limit
    rows = np.flatnonzero(keep & crowded[groups])
    rows = rows[stable_order(groups[rows], count)]
    for members in np.split(rows, np.cumsum(sizes[crowded])[:-1]) if len(rows) else ():
        values = scores[members]
        threshold = np.partition(values, len(values) - limit)[len(values) - limit]
        above = values > threshold
        keep[members] = above
        equals = members[values == threshold]
        keep[equals[: limit - np.count_nonzero(above)]] = True
    return keep
