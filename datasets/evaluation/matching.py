"""Greedy matching of detections (dt) to ground truth (gt), as in lvis and pycocotools, on columns.

K categories, A = 4 area ranges, T = 10 IoU thresholds. Work grows with detections and boxes, not with
images x categories; memory with boxes and with the detections that are evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from datasets.evaluation.detection_batches import DetectionBatch
from datasets.evaluation.ground_truth import AREA_RANGES, IOU_THRESHOLDS, GroundTruth, outside_area_ranges
from datasets.evaluation.grouping import rank_within_group, run_starts, stable_order
from datasets.evaluation.overlap import PAIRS_AT_ONCE, edges_of, expand_pairs, overlapping, pair_slices

# One integer holds a bit for every area range and IoU threshold: bit area * T + threshold.
_T = len(IOU_THRESHOLDS)
_ALL_AREAS = sum(1 << (area * _T) for area in range(len(AREA_RANGES)))
# [n]: the bits of the n lowest thresholds in every area range.
_LOWEST_THRESHOLDS = np.array([((1 << n) - 1) * _ALL_AREAS for n in range(_T + 1)], dtype=np.uint64)


@dataclass(frozen=True)
class Matches:
    """D evaluated detections sorted by category, then descending score. H of them matched at least once.

    category_index:   (D,) int64 0..K-1.
    ignore_unmatched: (D, A) bool: no false positive when unmatched.
    kept:             (M, D) bool: within each of the M limits on detections (max_dets).
    rows:             (D,) int32: their rows of the predictions.
    hits:             (H,) int64 ascending: index 0..D-1 of those that matched.
    matched, ignored: (H,) uint64, a bit for each area range and IoU threshold (`has_bit`): matched a box;
                      matched an ignored one.
    num_gt:           (A, K) int64: boxes that are not ignored.
    found:            (G,) uint64, bits as in `matched`: the boxes of the GroundTruth that a detection of the
                      widest limit matched.
    """

    category_index: np.ndarray
    ignore_unmatched: np.ndarray
    kept: np.ndarray
    rows: np.ndarray
    hits: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    num_gt: np.ndarray
    found: np.ndarray

    def within(self, limit: int) -> Matches:
        """The matches of the detections within one limit. A limit keeps the best, so no match changes."""
        kept = self.kept[limit]
        if kept.all():
            return self
        kept_hits = kept[self.hits]
        return replace(
            self,
            category_index=self.category_index[kept],
            ignore_unmatched=self.ignore_unmatched[kept],
            kept=self.kept[:, kept],
            rows=self.rows[kept],
            hits=(np.cumsum(kept) - 1)[self.hits[kept_hits]],
            matched=self.matched[kept_hits],
            ignored=self.ignored[kept_hits],
        )


def has_bit(bits: np.ndarray, area: int, threshold: int) -> np.ndarray:
    """(H,) bool: `Matches.matched` or `ignored` at one area range and IoU threshold."""
    return (bits & np.uint64(1 << (area * _T + threshold))) != 0


def match(
    gt: GroundTruth,
    batches: Iterable[DetectionBatch],
    num_categories: int,
    within_max_dets: Callable[[DetectionBatch], np.ndarray],
    needs_area: bool,
) -> Matches:
    """Greedily matches detections to ground truth, once for all maxDets.

    within_max_dets: batch of n -> (M, n) bool, for each limit the detections that count; a limit must keep
        the highest scores of an (image, category) pair.
    needs_area: detections without area are not evaluated (though they use up max_dets), as in `lvis`.
    """
    collector = _DetectionCollector(gt, num_categories, within_max_dets, needs_area)
    bits = _GroundTruthBits(gt)
    hits: list[tuple[np.ndarray, ...]] = []
    waiting = [_Pairs.none()]
    for batch in batches:
        waiting.append(collector.add(batch))
        if sum(len(pairs.gt) for pairs in waiting) > PAIRS_AT_ONCE:
            hits.append(_match_greedily(_Pairs.join(waiting), bits))
            waiting = [_Pairs.none()]
    hits.append(_match_greedily(_Pairs.join(waiting), bits))
    dt, matched, ignored = (np.concatenate(columns) for columns in zip(*hits, strict=True))
    category_index, scores, ignore_unmatched, kept, rows = collector.columns()
    by_score = np.argsort(-scores, kind="stable")
    order = by_score[stable_order(category_index[by_score], num_categories)]
    sorted_index = np.empty(len(order), dtype=np.int64)
    sorted_index[order] = np.arange(len(order))
    ascending = np.argsort(sorted_index[dt])
    return Matches(
        category_index=category_index[order],
        ignore_unmatched=ignore_unmatched[order],
        kept=kept[order].T,
        rows=rows[order],
        hits=sorted_index[dt][ascending],
        matched=matched[ascending],
        ignored=ignored[ascending],
        num_gt=np.stack([np.bincount(gt.category_index[~i], minlength=num_categories) for i in gt.ignored.T]),
        found=bits.taken,
    )


class _Pairs(NamedTuple):
    """Candidate pairs: a detection and a box of its key with IoU >= 0.5, sorted by detection, then box."""

    dt: np.ndarray
    key: np.ndarray
    gt: np.ndarray
    iou: np.ndarray

    @classmethod
    def none(cls) -> _Pairs:
        return cls(*np.zeros((3, 0), dtype=np.int64), np.zeros(0))

    @classmethod
    def join(cls, parts: Sequence[_Pairs]) -> _Pairs:
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class _GroundTruthBits:
    """(G,) bit masks like those of `Matches`.

    counted:      where the box is not ignored.
    single_match: where it may be matched once only.
    taken:        where it has been matched; the only one that changes.
    """

    def __init__(self, gt: GroundTruth) -> None:
        everywhere, nowhere = _LOWEST_THRESHOLDS[-1], np.uint64(0)
        area_bits = np.array([1023 << (_T * area) for area in range(len(AREA_RANGES))], dtype=np.uint64)
        self.counted = np.where(gt.ignored, nowhere, area_bits).sum(1, dtype=np.uint64)
        self.single_match = np.where(gt.crowd, nowhere, everywhere)
        self.taken = np.zeros(len(gt.crowd), dtype=np.uint64)


class _DetectionCollector:
    """Collects the detections that are evaluated and finds their candidate boxes."""

    def __init__(self, gt: GroundTruth, num_categories: int, within_max_dets: Callable, needs_area: bool):
        self.gt, self.num_categories = gt, num_categories
        self.within_max_dets, self.needs_area = within_max_dets, needs_area
        # A category without any box has no curve.
        self.annotated = np.bincount(gt.category_index, minlength=num_categories).astype(bool)
        self.edges = edges_of(gt.boxes_xywh)
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.num_dt = 0

    def add(self, batch: DetectionBatch) -> _Pairs:
        """The candidate pairs of a batch."""
        gt, kept = self.gt, self.within_max_dets(batch)
        evaluated = kept.any(0) & (batch.category_index >= 0) & self.annotated[batch.category_index]
        rows = np.flatnonzero(evaluated & batch.has_area if self.needs_area else evaluated)
        key = batch.image_index[rows] * self.num_categories + batch.category_index[rows]
        key_index = gt.key_index(key)
        if not gt.exhaustive:
            judged = gt.is_judged(batch.image_index[rows], batch.category_index[rows])
            listed = np.flatnonzero((key_index >= 0) | judged)
            rows, key, key_index = rows[listed], key[listed], key_index[listed]
        boxes_xywh = batch.boxes_xywh[rows]
        outside = outside_area_ranges(boxes_xywh[:, 2] * boxes_xywh[:, 3])
        ignore_unmatched = outside | gt.not_exhaustive[key_index][:, None]
        category_index = batch.category_index[rows].astype(np.int32)
        prediction_rows = batch.prediction_rows(rows).astype(np.int32)
        self.parts.append(
            (category_index, batch.scores[rows], ignore_unmatched, kept[:, rows].T, prediction_rows)
        )
        before, self.num_dt = self.num_dt, self.num_dt + len(rows)
        candidates = self._candidates(boxes_xywh, gt.first[key_index], gt.count[key_index])
        return _Pairs.join([_Pairs(dt + before, key[dt], box, iou) for dt, box, iou in candidates])

    def columns(self) -> tuple[np.ndarray, ...]:
        """category_index (D,), scores (D,), ignore_unmatched (D, A), kept (D, M) and rows (D,)."""
        return tuple(np.concatenate(columns) for columns in zip(*self.parts, strict=True))

    def _candidates(
        self, boxes_xywh: np.ndarray, first: np.ndarray, count: np.ndarray
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """(dt, gt, iou) of pairs with IoU >= 0.5: each detection with `count` boxes from `first` on."""
        with_gt = np.flatnonzero(count)
        first, count, edges = first[with_gt], count[with_gt], edges_of(boxes_xywh[with_gt])
        for part in pair_slices(count):
            dt, gt, iou = overlapping(edges, self.edges, *expand_pairs(first, count, part), self.gt.crowd)
            near = np.flatnonzero(iou >= IOU_THRESHOLDS[0])
            yield with_gt[dt[near]], gt[near], iou[near]


def _match_greedily(pairs: _Pairs, bits: _GroundTruthBits) -> tuple[np.ndarray, ...]:
    """Candidate pairs -> the detections that matched, their `matched` and `ignored` bits.

    Within a key, detections match in order of descending score. Each takes the free box of the highest IoU,
    the last among equals; an ignored box only if no other is free. Keys are independent, so round n takes
    the n-th step of every key; a step offers one box to one detection.
    """
    starts = run_starts(pairs.dt)
    detections, num_candidates = pairs.dt[starts], np.diff(np.append(starts, len(pairs.dt)))
    dt_of_step, gt_of_step, allowed, step = _steps(pairs, starts, num_candidates, bits)
    order = stable_order(step, int(step.max(initial=0)) + 1)
    found, matched, ignored = np.zeros((3, len(detections)), dtype=np.uint64)
    begin = 0
    for end in np.cumsum(np.bincount(step)):
        rows = order[begin:end]
        dt, gt = dt_of_step[rows], gt_of_step[rows]
        free = allowed[rows] & ~bits.taken[gt] & ~found[dt]
        bits.taken[gt] |= free & bits.single_match[gt]
        found[dt] |= free
        matched[dt] |= free
        ignored[dt] |= free & ~bits.counted[gt]
        begin = end
    hits = np.flatnonzero(found)
    return detections[hits], matched[hits], ignored[hits]


def _steps(
    pairs: _Pairs, starts: np.ndarray, num_candidates: np.ndarray, bits: _GroundTruthBits
) -> tuple[np.ndarray, ...]:
    """(dt 0.., gt, bits that the IoU allows, number within its key) of every step.

    A detection with one candidate takes one step. One with several is offered the counted boxes, then the
    ignored ones, from the highest IoU down, later boxes first among equals.
    """
    dt = np.repeat(np.arange(len(starts)), num_candidates)
    reached = _LOWEST_THRESHOLDS[np.searchsorted(IOU_THRESHOLDS, pairs.iou, side="right")]
    several = num_candidates > 1
    num_steps = np.where(several, 2 * num_candidates, 1)
    by_key = np.argsort(pairs.key[starts], kind="stable")
    before = np.cumsum(num_steps[by_key]) - num_steps[by_key]
    key_starts = run_starts(pairs.key[starts][by_key])
    before -= np.repeat(before[key_starts], np.diff(np.append(key_starts, len(before))))
    first_step = np.empty_like(before)
    first_step[by_key] = before
    one, many = np.flatnonzero(~several[dt]), np.flatnonzero(several[dt])
    second_pass = np.repeat((False, True), len(many))
    many = np.concatenate((many, many))
    order = np.lexsort((-pairs.gt[many], -pairs.iou[many], second_pass, dt[many]))
    many, second_pass = many[order], second_pass[order]
    counted = bits.counted[pairs.gt[many]]
    row = np.concatenate((one, many))
    step = np.concatenate((first_step[dt[one]], first_step[dt[many]] + rank_within_group(dt[many])))
    allowed = np.concatenate((reached[one], reached[many] & np.where(second_pass, ~counted, counted)))
    return dt[row], pairs.gt[row], allowed, step
