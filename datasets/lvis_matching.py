"""Which detection finds which box, by the rules of the `lvis` package, on columns.

I pictures, K categories, M detections, G boxes, A = 4 area ranges, T = 10 overlap thresholds. Work and memory
grow with detections and boxes, never with pictures x categories.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from datasets.predictions import Predictions
from datasets.store import AnnotationStore, Ragged
from util.errors import UserError
from util.logging import get_logger

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# all, small, medium, large: pixels squared, both ends inclusive.
AREA_RANGES = np.array([[0.0, 1e10], [0.0, 32.0**2], [32.0**2, 96.0**2], [96.0**2, 1e10]])
MAX_DETECTIONS = 300

# Pairs of detection and box that are compared at a time; bounds the memory.
_PAIRS_AT_ONCE = 500_000


@dataclass(frozen=True)
class Matches:
    """What the precision-recall curves need. Detections are in order of category, then descending score.

    F detections count somewhere; C of them found a box at some threshold in some area range.

    category:  (F,) int64.
    excused:   (F, A) bool: not counted as false when unmatched.
    found:     (C,) int64 rows of the F, ascending.
    matched, ignored: (C, A, T) bool: matched a box; matched one that is itself ignored.
    boxes:     (A, K) int64: boxes to be found.
    """

    category: np.ndarray
    excused: np.ndarray
    found: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class _Boxes:
    """Annotated boxes in order of `key` = picture * K + category, then of the file."""

    key: np.ndarray
    boxes_xywh: np.ndarray
    ignored: np.ndarray  # (G, A)
    matchable: np.ndarray  # (G,) see _ground_truth
    category: np.ndarray


@dataclass(frozen=True)
class _Found:
    """Detections in order of `key`, then of descending score, then as given."""

    key: np.ndarray
    boxes_xywh: np.ndarray
    scores: np.ndarray
    areas: np.ndarray


def match(annotations: AnnotationStore, predictions: Predictions) -> Matches:
    """Federated matching: a detection counts only where its category is annotated or known to be absent.

    Raises UserError for a picture that the annotations do not list and for a score that is not a number.
    Detections of unknown categories and those without size are left out, as `lvis` does, and counted in the
    log.
    """
    categories = len(annotations.categories)
    truth = _ground_truth(annotations)
    found = _detections(annotations, predictions, truth)
    counts = np.stack([np.bincount(truth.category[~ig], minlength=categories) for ig in truth.ignored.T])
    outside = _outside_ranges(found.areas)
    excused = outside | _member(found.key, _pair_keys(annotations.not_exhaustive, categories))[:, None]
    rows, matched, ignored = _match_all(truth, found)

    category = found.key % categories
    order = np.lexsort((-found.scores, category))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    by_place = np.argsort(place[rows])
    return Matches(
        category=category[order],
        excused=excused[order],
        found=place[rows][by_place],
        matched=matched[by_place],
        ignored=ignored[by_place],
        boxes=counts,
    )


def _ground_truth(annotations: AnnotationStore) -> _Boxes:
    categories = len(annotations.categories)
    # lvis leaves out annotations whose area is not positive.
    rows = np.flatnonzero((annotations.areas > 0) & np.isfinite(annotations.areas))
    key = annotations.picture_of_box[rows] * categories + annotations.category_index[rows]
    order = np.argsort(key, kind="stable")
    rows, key = rows[order], key[order]
    ignore = annotations.ignore[rows]
    if not annotations.federated:
        # Only COCO's files have crowds, and lvis does not know them: what lies in a crowd is not judged.
        ignore = ignore | annotations.crowd[rows]
    return _Boxes(
        key=key,
        boxes_xywh=annotations.boxes_xywh[rows],
        ignored=ignore[:, None] | _outside_ranges(annotations.areas[rows]),
        # lvis marks a match by the annotation's id, so a box with id 0 is taken but its finder stays
        # unmatched.
        matchable=annotations.annotation_ids[rows] != 0,
        category=key % categories,
    )


def _detections(annotations: AnnotationStore, predictions: Predictions, truth: _Boxes) -> _Found:
    """Those detections that can change a number: at most 300 a picture, then federated."""
    category_ids = annotations.category_ids
    categories = len(category_ids)
    picture = _positions(annotations.image_ids, predictions.image_ids)
    if (unknown := np.flatnonzero(picture < 0)).size:
        raise UserError(
            f"{len(unknown)} predictions are of pictures that {annotations.name} does not list "
            f"(first: image_id {predictions.image_ids[unknown[0]]})"
        )
    if (nan := np.flatnonzero(np.isnan(predictions.scores))).size:
        raise UserError(
            f"{len(nan)} predictions have a score that is not a number (first: image_id "
            f"{predictions.image_ids[nan[0]]}, category_id {predictions.category_ids[nan[0]]})"
        )
    category = _positions(category_ids, predictions.category_ids)
    areas = predictions.boxes_xywh[:, 2] * predictions.boxes_xywh[:, 3]
    sized = (areas > 0) & np.isfinite(areas)
    _report(category < 0, "are of categories that the annotations do not list", predictions)
    _report(~sized, "have a box without size", predictions)
    # The cap comes first: what is left out below has used its place up, as in lvis.
    keep = _best_of_each_picture(picture, predictions.scores, len(annotations)) & (category >= 0) & sized
    # A category without any box has no curve.
    keep &= np.bincount(truth.category, minlength=categories).astype(bool)[category]
    rows = np.flatnonzero(keep)
    key = picture[rows] * categories + category[rows]
    if annotations.federated:
        annotated = np.union1d(truth.key, _pair_keys(annotations.negatives, categories))
        allowed = _member(key, annotated)
        rows, key = rows[allowed], key[allowed]
    order = np.lexsort((-predictions.scores[rows], key))
    rows = rows[order]
    return _Found(key[order], predictions.boxes_xywh[rows], predictions.scores[rows], areas[rows])


def _best_of_each_picture(picture: np.ndarray, scores: np.ndarray, pictures: int) -> np.ndarray:
    """(M,) bool: the best 300 of each picture, earlier ones first among equal scores."""
    keep = np.ones(len(picture), dtype=bool)
    counts = np.bincount(picture, minlength=pictures)
    crowded = np.flatnonzero(counts[picture] > MAX_DETECTIONS)
    if len(crowded):
        order = crowded[np.lexsort((-scores[crowded], picture[crowded]))]
        _, first, inverse = np.unique(picture[order], return_index=True, return_inverse=True)
        keep[order[np.arange(len(order)) - first[inverse] >= MAX_DETECTIONS]] = False
    return keep


def _match_all(truth: _Boxes, found: _Found) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(C,) rows of `found` that matched anything, and their (C, A, T) matched and ignored."""
    keys, first, counts = np.unique(truth.key, return_index=True, return_counts=True)
    group = _positions(keys, found.key)
    rows = np.flatnonzero(group >= 0)
    first, counts = first[group[rows]], counts[group[rows]]
    pieces = [(np.zeros(0, np.int64), *np.zeros((2, 0, len(AREA_RANGES), len(IOU_THRESHOLDS)), bool))]
    for part in _pieces(found.key[rows], counts):
        detections = rows[part]
        row = np.repeat(np.arange(len(detections)), counts[part])
        start = np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        box = np.repeat(first[part], counts[part]) + np.arange(len(row)) - start
        overlap = _overlaps(found.boxes_xywh[detections[row]], truth.boxes_xywh[box])
        near = overlap >= IOU_THRESHOLDS[0]
        if near.any():
            pieces.append(_match_rounds(truth, found.key, detections[row[near]], box[near], overlap[near]))
    return tuple(np.concatenate(columns) for columns in zip(*pieces, strict=True))


def _pieces(keys: np.ndarray, pairs: np.ndarray) -> Iterator[slice]:
    """Slices of the sorted rows with about _PAIRS_AT_ONCE pairs each, none of which splits a key."""
    total = np.cumsum(pairs)
    begin = 0
    while begin < len(keys):
        done = total[begin - 1] if begin else 0
        last = min(np.searchsorted(total, done + _PAIRS_AT_ONCE), len(keys) - 1)
        end = int(np.searchsorted(keys, keys[last], side="right"))
        yield slice(begin, end)
        begin = end


def _match_rounds(
    truth: _Boxes, keys: np.ndarray, row: np.ndarray, box: np.ndarray, overlap: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Greedy matching of candidate pairs (row of the detections, box), for all areas and thresholds at once.

    Within a key, detections choose one after the other by descending score; different keys are independent.
    So round n lets the n-th detection of every key choose. It takes the free box of the highest overlap, the
    last of equal ones; an ignored box only where no other is free (`LVISEval.evaluate_img`).
    """
    rows, row = np.unique(row, return_inverse=True)
    rank = _rank_in_run(keys[rows])
    order = np.lexsort((box, overlap, row, rank[row]))
    row, box, overlap = row[order], box[order], overlap[order]
    passes = overlap[:, None] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    boxes, box = np.unique(box, return_inverse=True)
    counted, matchable = ~truth.ignored[boxes], truth.matchable[boxes]
    shape = (len(AREA_RANGES), len(IOU_THRESHOLDS))
    taken = np.zeros((len(boxes), *shape), dtype=bool)
    matched = np.zeros((len(rows), *shape), dtype=bool)
    ignored = np.zeros_like(matched)
    ends = np.cumsum(np.bincount(rank[row]))
    for begin, end in zip(np.concatenate(([0], ends[:-1])), ends, strict=True):
        here, size = box[begin:end], end - begin
        chooser = row[begin:end]
        starts = np.flatnonzero(np.diff(chooser, prepend=-1))
        # Pairs of a detection are sorted by overlap: the best free one is the last. Counted boxes outrank
        # ignored.
        value = np.arange(1, size + 1, dtype=np.int32)[:, None] + size * counted[here]
        free = passes[begin:end, None, :] & ~taken[here]
        best = np.maximum.reduceat(np.where(free, value[:, :, None], 0), starts, axis=0)
        detection, area, threshold = np.nonzero(best)
        value = best[detection, area, threshold]
        chosen = here[(value - 1) % size]
        taken[chosen, area, threshold] = True
        detection = chooser[starts][detection]
        matched[detection, area, threshold] = matchable[chosen]
        ignored[detection, area, threshold] = value <= size
    any_match = (matched | ignored).any((1, 2))
    return rows[any_match], matched[any_match], ignored[any_match]


def _overlaps(a_xywh: np.ndarray, b_xywh: np.ndarray) -> np.ndarray:
    """(P,) intersection over union of paired boxes, rounded exactly as pycocotools' `bbIou`."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a_xywh.T, b_xywh.T
    width = np.minimum(aw + ax, bw + bx) - np.maximum(ax, bx)
    height = np.minimum(ah + ay, bh + by) - np.maximum(ay, by)
    meet = (width > 0) & (height > 0)
    intersection = width * height
    union = aw * ah + bw * bh - intersection
    return np.divide(intersection, union, out=np.zeros(len(meet)), where=meet)


def _outside_ranges(areas: np.ndarray) -> np.ndarray:
    """(n, A) bool."""
    return (areas[:, None] < AREA_RANGES[:, 0]) | (areas[:, None] > AREA_RANGES[:, 1])


def _pair_keys(lists: Ragged, categories: int) -> np.ndarray:
    """Sorted keys picture * K + category of Ragged category lists."""
    return np.unique(lists.row_of_value * categories + lists.values)


def _positions(sorted_values: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where each value is in `sorted_values`, -1 for those that are not."""
    if not len(sorted_values):
        return np.full(len(values), -1)
    position = np.searchsorted(sorted_values, values).clip(max=len(sorted_values) - 1)
    return np.where(sorted_values[position] == values, position, -1)


def _member(values: np.ndarray, sorted_values: np.ndarray) -> np.ndarray:
    return _positions(sorted_values, values) >= 0


def _rank_in_run(keys: np.ndarray) -> np.ndarray:
    """Sorted keys -> 0, 1, 2 ... within each run of equal ones."""
    starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
    return np.arange(len(keys)) - np.repeat(starts, np.diff(np.append(starts, len(keys))))


def _report(affected: np.ndarray, what: str, predictions: Predictions) -> None:
    if count := int(np.count_nonzero(affected)):
        first = np.flatnonzero(affected)[0]
        get_logger().warning(
            "%d of %d predictions %s and are left out (first: image_id %d, category_id %d)",
            count,
            len(predictions),
            what,
            predictions.image_ids[first],
            predictions.category_ids[first],
        )
