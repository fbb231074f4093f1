"""Which detection finds which box: the greedy matching of LVIS and COCO, on columns.

K categories, A = 4 area ranges, T = 10 overlap thresholds. Work grows with detections and boxes, not with
images x categories; memory with boxes and with those detections that are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from datasets.evaluation.candidates import DetectionBatch
from datasets.evaluation.ground_truth import AREA_RANGES, IOU_THRESHOLDS, GroundTruth, outside_ranges
from datasets.evaluation.grouping import rank_within_group, run_starts, stable_order

# Pairs of detection and box that are compared, and candidate pairs that are matched, at a time.
_PAIRS_AT_ONCE = 1 << 19

# The outcomes of all area ranges and thresholds are bits of one integer: area * T + threshold.
_T = len(IOU_THRESHOLDS)
_ALL_AREAS = sum(1 << (area * _T) for area in range(len(AREA_RANGES)))
_PASSED = np.array([((1 << passed) - 1) * _ALL_AREAS for passed in range(_T + 1)], dtype=np.uint64)


@dataclass(frozen=True)
class Matches:
    """What precision-recall curves need. Detections are in order of category, then descending score.

    F detections are judged; C of them found a box at some threshold in some area range.

    category:  (F,) int64 0..K-1.
    ignore_unmatched:   (F, A) bool: not false when unmatched.
    kept:      (L, F) bool: within each of the limits that were asked for.
    found:     (C,) int64 rows of the F, ascending.
    matched, ignored: (C,) uint64, a bit for each range and threshold (`outcome`): matched a box; matched one
               that need not be found.
    boxes:     (A, K) int64: boxes to be found.
    """

    category: np.ndarray
    ignore_unmatched: np.ndarray
    kept: np.ndarray
    found: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    boxes: np.ndarray

    def within(self, limit: int) -> Matches:
        """The matches of the detections within one limit. A limit keeps the best, so no match changes."""
        kept = self.kept[limit]
        if kept.all():
            return self
        found = kept[self.found]
        return replace(
            self,
            category=self.category[kept],
            ignore_unmatched=self.ignore_unmatched[kept],
            kept=self.kept[:, kept],
            found=(np.cumsum(kept) - 1)[self.found[found]],
            matched=self.matched[found],
            ignored=self.ignored[found],
        )


def outcome(bits: np.ndarray, area: int, threshold: int) -> np.ndarray:
    """(C,) bool of `Matches.matched` or `ignored`."""
    return (bits & np.uint64(1 << (area * _T + threshold))) != 0


def match(
    truth: GroundTruth,
    chunks: Iterable[DetectionBatch],
    categories: int,
    limits: Callable[[DetectionBatch], np.ndarray],
    needs_size: bool,
) -> Matches:
    """Lets the detections choose their boxes, once for all limits.

    limits: chunk of n -> (L, n) bool, which detections count; each keeps the best of a class and image.
    needs_size: detections whose box has no area are not judged (but use up their place), as in `lvis`.
    """
    judge, bits = _DetectionCollector(truth, categories, limits, needs_size), _BoxBits(truth)
    found: list[tuple[np.ndarray, ...]] = []
    waiting = [_Pairs.none()]
    for chunk in chunks:
        waiting.append(judge(chunk))
        if sum(len(pairs.box) for pairs in waiting) > _PAIRS_AT_ONCE:
            found.append(_choose(_Pairs.join(waiting), bits))
            waiting = [_Pairs.none()]
    found.append(_choose(_Pairs.join(waiting), bits))
    rows, matched, ignored = (np.concatenate(columns) for columns in zip(*found, strict=True))
    category, scores, ignore_unmatched, kept = judge.columns()
    by_score = np.argsort(-scores, kind="stable")
    order = by_score[stable_order(category[by_score], categories)]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    by_place = np.argsort(place[rows])
    return Matches(
        category=category[order],
        ignore_unmatched=ignore_unmatched[order],
        kept=kept[order].T,
        found=place[rows][by_place],
        matched=matched[by_place],
        ignored=ignored[by_place],
        boxes=np.stack([np.bincount(truth.category[~i], minlength=categories) for i in truth.ignored.T]),
    )


class _Pairs(NamedTuple):
    """Pairs of a detection and a box of its key that overlap enough, by detection, then by box."""

    detection: np.ndarray
    key: np.ndarray
    box: np.ndarray
    overlap: np.ndarray

    @classmethod
    def none(cls) -> _Pairs:
        return cls(*np.zeros((3, 0), dtype=np.int64), np.zeros(0))

    @classmethod
    def join(cls, parts: Sequence[_Pairs]) -> _Pairs:
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class _BoxBits:
    """For each box, as masks of bits like those of `Matches`.

    counted:   where it is to be found.
    once:      where one detection at most may have it.
    matchable: where its finder counts as matched.
    taken:     where it was found; the only one that changes.
    """

    def __init__(self, truth: GroundTruth) -> None:
        everything, nothing = _PASSED[-1], np.uint64(0)
        area_bits = np.array([1023 << (_T * area) for area in range(len(AREA_RANGES))], dtype=np.uint64)
        self.counted = np.where(truth.ignored, nothing, area_bits).sum(1, dtype=np.uint64)
        self.once = np.where(truth.crowd, nothing, everything)
        self.matchable = np.where(truth.matchable, everything, nothing)
        self.taken = np.zeros(len(truth.crowd), dtype=np.uint64)


class _DetectionCollector:
    """Collects the detections that are judged, and finds whom they may choose."""

    def __init__(self, truth: GroundTruth, categories: int, limits: Callable, needs_size: bool) -> None:
        self.truth, self.categories = truth, categories
        self.limits, self.needs_size = limits, needs_size
        # A category without any box has no curve.
        self.annotated = np.bincount(truth.category, minlength=categories).astype(bool)
        self.edges = _edges(truth.boxes_xywh)
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.total = 0

    def __call__(self, chunk: DetectionBatch) -> _Pairs:
        truth, kept = self.truth, self.limits(chunk)
        judged = kept.any(0) & (chunk.category >= 0) & self.annotated[chunk.category]
        rows = np.flatnonzero(judged & chunk.sized if self.needs_size else judged)
        key = chunk.image[rows] * self.categories + chunk.category[rows]
        group = truth.groups(key)
        if not truth.everywhere:
            listed = np.flatnonzero(group >= 0)
            rows, key, group = rows[listed], key[listed], group[listed]
        boxes_xywh = chunk.boxes_xywh[rows]
        outside = outside_ranges(boxes_xywh[:, 2] * boxes_xywh[:, 3])
        ignore_unmatched = outside | truth.not_exhaustive[group][:, None]
        self.parts.append(
            (chunk.category[rows].astype(np.int32), chunk.scores[rows], ignore_unmatched, kept[:, rows].T)
        )
        before, self.total = self.total, self.total + len(rows)
        near = self._near(boxes_xywh, truth.first[group], truth.count[group])
        return _Pairs.join([_Pairs(row + before, key[row], box, overlap) for row, box, overlap in near])

    def columns(self) -> tuple[np.ndarray, ...]:
        """category (F,), scores (F,), ignore_unmatched (F, A), kept (F, L) of what was collected."""
        return tuple(np.concatenate(columns) for columns in zip(*self.parts, strict=True))

    def _near(
        self, boxes_xywh: np.ndarray, first: np.ndarray, count: np.ndarray
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """(row, box, overlap) where detections and the `count` boxes from `first` on overlap enough."""
        choosers = np.flatnonzero(count)
        first, count, edges = first[choosers], count[choosers], _edges(boxes_xywh[choosers])
        for part in _pieces(count):
            row = np.repeat(np.arange(part.start, part.stop), count[part])
            box = np.repeat(first[part] - np.cumsum(count[part]) + count[part], count[part])
            box += np.arange(len(box))
            overlap = _overlaps(edges.take(row, 1), self.edges.take(box, 1), self.truth.crowd[box])
            near = np.flatnonzero(overlap >= IOU_THRESHOLDS[0])
            yield choosers[row[near]], box[near], overlap[near]


def _pieces(pairs: np.ndarray) -> Iterator[slice]:
    """Slices of rows with about _PAIRS_AT_ONCE pairs each; an empty one where there are no rows."""
    total, begin = np.cumsum(pairs), 0
    while True:
        done = total[begin - 1] if begin else 0
        end = max(int(np.searchsorted(total, done + _PAIRS_AT_ONCE, "right")), min(begin + 1, len(pairs)))
        yield slice(begin, end)
        begin = end
        if begin == len(pairs):
            return


def _choose(pairs: _Pairs, bits: _BoxBits) -> tuple[np.ndarray, ...]:
    """Greedy matching of candidates -> detections that found a box, their `matched` and `ignored`.

    Within a key, detections choose one after the other by descending score. Each takes the free box of the
    highest overlap, the last of equal ones; a box that need not be found only where no other is free. Keys
    are independent, so round n takes the n-th step of every key; a step offers one box to one detection.
    """
    starts = run_starts(pairs.detection)
    detections, num_candidates = pairs.detection[starts], np.diff(np.append(starts, len(pairs.detection)))
    chooser, box, may, step = _steps(pairs, starts, num_candidates, bits)
    order = stable_order(step, int(step.max(initial=0)) + 1)
    ends = np.cumsum(np.bincount(step))
    chosen, matched, ignored = np.zeros((3, len(detections)), dtype=np.uint64)
    begin = 0
    for end in ends:
        here = order[begin:end]
        who, what = chooser[here], box[here]
        free = may[here] & ~bits.taken[what] & ~chosen[who]
        bits.taken[what] |= free & bits.once[what]
        chosen[who] |= free
        matched[who] |= free & bits.matchable[what]
        ignored[who] |= free & ~bits.counted[what]
        begin = end
    some = np.flatnonzero(chosen)
    return detections[some], matched[some], ignored[some]


def _steps(
    pairs: _Pairs, starts: np.ndarray, num_candidates: np.ndarray, bits: _BoxBits
) -> tuple[np.ndarray, ...]:
    """(chooser 0.., box, bits that the overlap allows, number of the step in its key) of every step.

    A detection with one candidate takes one step. One with several is offered those to be found, then the
    others, from the highest overlap down, later boxes first among equals.
    """
    index = np.repeat(np.arange(len(starts)), num_candidates)
    passed = _PASSED[np.searchsorted(IOU_THRESHOLDS, pairs.overlap, side="right")]
    several = num_candidates > 1
    count = np.where(several, 2 * num_candidates, 1)
    by_key = np.argsort(pairs.key[starts], kind="stable")
    before = np.cumsum(count[by_key]) - count[by_key]
    key_starts = run_starts(pairs.key[starts][by_key])
    before -= np.repeat(before[key_starts], np.diff(np.append(key_starts, len(before))))
    offset = np.empty_like(before)
    offset[by_key] = before
    one, many = np.flatnonzero(~several[index]), np.flatnonzero(several[index])
    spare = np.repeat((False, True), len(many))
    many = np.concatenate((many, many))
    order = np.lexsort((-pairs.box[many], -pairs.overlap[many], spare, index[many]))
    many, spare = many[order], spare[order]
    counted = bits.counted[pairs.box[many]]
    place = np.concatenate((one, many))
    step = np.concatenate((offset[index[one]], offset[index[many]] + rank_within_group(index[many])))
    may = np.concatenate((passed[one], passed[many] & np.where(spare, ~counted, counted)))
    return index[place], pairs.box[place], may, step


def _edges(boxes_xywh: np.ndarray) -> np.ndarray:
    """(5, n): left, top, right, bottom, area, rounded as pycocotools' `bbIou` does."""
    x, y, w, h = boxes_xywh.T
    return np.stack((x, y, w + x, h + y, w * h))


def _overlaps(detections: np.ndarray, boxes: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """(P,) intersection over union of paired (5, P) edges; over the detection's area for a crowd."""
    width = np.minimum(detections[2], boxes[2]) - np.maximum(detections[0], boxes[0])
    height = np.minimum(detections[3], boxes[3]) - np.maximum(detections[1], boxes[1])
    intersection = width * height
    union = detections[4] + boxes[4] - intersection
    if crowd.any():
        union[crowd] = detections[4, crowd]
    meet = (width > 0) & (height > 0)
    return np.divide(intersection, union, out=np.zeros(len(meet)), where=meet)
