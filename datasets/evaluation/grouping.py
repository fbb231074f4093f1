"""Look-up, ranks and top k within groups, on integer columns."""

from __future__ import annotations

import numpy as np


def index_of(sorted_values: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n,) int64: the index of each of n integers in `sorted_values`, -1 where it is absent.

    sorted_values: ascending and unique. A dense range is looked up in a table, a sparse one by bisection.
    """
    if not len(sorted_values):
        return np.full(len(values), -1)
    low = sorted_values[0]
    span = int(sorted_values[-1]) - int(low) + 1
    if span <= 8 * (len(values) + len(sorted_values)):
        # One spare cell at either end catches everything outside the range.
        table = np.full(span + 2, -1)
        table[sorted_values - low + 1] = np.arange(len(sorted_values))
        return table.take(values - low + 1, mode="clip")
    index = np.searchsorted(sorted_values, values).clip(max=len(sorted_values) - 1)
    return np.where(sorted_values[index] == values, index, -1)


def rank_within_group(values: np.ndarray) -> np.ndarray:
    """(n,) int64: 0, 1, 2, ... within each run of equal neighbours."""
    starts = run_starts(values)
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))


def run_starts(values: np.ndarray) -> np.ndarray:
    """(runs,) int64: the index at which each run of equal neighbours begins."""
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    return np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1))


def sorted_unique(values: np.ndarray) -> np.ndarray:
    """As `np.unique`, which hashes integers first and is several times slower."""
    values = np.sort(values)
    return values[run_starts(values)]


def stable_order(values: np.ndarray, num_values: int) -> np.ndarray:
    """Stable `argsort` of integers 0..num_values-1; NumPy sorts 16 bits by radix."""
    return np.argsort(values.astype(np.uint16) if num_values <= 1 << 16 else values, kind="stable")


def topk_per_group(groups: np.ndarray, scores: np.ndarray, num_groups: int, k: int) -> np.ndarray:
    """(n,) bool: the top k of each group 0..num_groups-1; earlier ones win ties. None of group -1."""
    keep = groups >= 0
    sizes = np.bincount(groups[keep], minlength=num_groups)
    too_large = sizes > k
    rows = np.flatnonzero(keep & too_large[groups])
    rows = rows[stable_order(groups[rows], num_groups)]
    for members in np.split(rows, np.cumsum(sizes[too_large])[:-1]) if len(rows) else ():
        values = scores[members]
        threshold = np.partition(values, len(values) - k)[len(values) - k]
        above = values > threshold
        keep[members] = above
        ties = members[values == threshold]
        keep[ties[: k - np.count_nonzero(above)]] = True
    return keep
