"""What became of every detection and every box: the ground that reports stand on.

D judged detections: those that count for AP, because their class is evaluated on their image. In LVIS a class
is evaluated only where it is annotated or verified absent, so a detection of any other class is neither right
nor wrong and is not among them. G boxes of the ground truth, T = 10 IoU thresholds, I images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from datasets.annotations.table import AnnotationTable
from datasets.evaluation import coco, lvis
from datasets.evaluation.detection_batches import DetectionBatch, iter_batches
from datasets.evaluation.ground_truth import IOU_THRESHOLDS, GroundTruth, coco_ground_truth, lvis_ground_truth
from datasets.evaluation.grouping import index_of
from datasets.evaluation.matching import Matches
from datasets.evaluation.overlap import edges_of, expand_pairs, overlapping, pair_slices
from datasets.evaluation.predictions import Predictions
from datasets.evaluation.result import BoxResult

# Least IoU at which a detection is said to be near a box (TIDE's background threshold).
NEAR = 0.1
# The bits of all boxes' sizes; other area ranges are not reported.
_ANY_SIZE = np.uint64((1 << len(IOU_THRESHOLDS)) - 1)


@dataclass(frozen=True)
class Boxes:
    """The G boxes of the ground truth, sorted by image, then class.

    rows:        (G,) int64: rows of the annotations.
    image_index, class_index: (G,) int64 0..I-1, 0..K-1.
    counted:     (G,) bool: not ignored.
    found:       (G,) uint16: bit t is set where a detection matched the box at threshold t.
    top_row:     (G,) int64: the prediction of the highest score, of any class, at IoU 0.5 or more; -1: none.
    """

    rows: np.ndarray
    image_index: np.ndarray
    class_index: np.ndarray
    counted: np.ndarray
    found: np.ndarray
    top_row: np.ndarray


@dataclass(frozen=True)
class Judged:
    """The D judged detections, sorted by class, then descending score; H of them matched a box at IoU 0.5.

    rows:        (D,) int32: rows of the predictions.
    image_index, class_index: (D,) int32 0..I-1, 0..K-1.
    scores:      (D,) float32.
    counts:      (D,) bool: false positive where unmatched (LVIS: not where the class is not exhaustively
                 annotated).
    hits:        (H,) int64 ascending: index 0..D-1.
    matched, ignored: (H,) uint16: bit t is set where it matched a box at threshold t, and an ignored one.
    same_iou, other_iou: (D,) float32: the highest IoU with a counted box of its own class and of another; 0
                 below NEAR.
    same_box, other_box: (D,) int32 0..G-1: that box; -1: none.
    """

    rows: np.ndarray
    image_index: np.ndarray
    class_index: np.ndarray
    scores: np.ndarray
    counts: np.ndarray
    hits: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    same_iou: np.ndarray
    other_iou: np.ndarray
    same_box: np.ndarray
    other_box: np.ndarray
    boxes: Boxes
    num_images: int
    num_classes: int

    def true(self, threshold: int) -> np.ndarray:
        """(H,) bool: true positives at a threshold 0..T-1."""
        return has_bit(self.matched, threshold) & ~has_bit(self.ignored, threshold)

    def false(self, threshold: int) -> np.ndarray:
        """(D,) bool: false positives at a threshold 0..T-1."""
        false = self.counts.copy()
        false[self.hits] &= ~has_bit(self.matched | self.ignored, threshold)
        return false

    def missed(self, threshold: int) -> np.ndarray:
        """(G,) bool: counted boxes without a match at a threshold 0..T-1."""
        return self.boxes.counted & ~has_bit(self.boxes.found, threshold)

    @property
    def num_boxes(self) -> np.ndarray:
        """(K,) int64: counted boxes."""
        boxes = self.boxes
        return np.bincount(boxes.class_index[boxes.counted], minlength=self.num_classes)

    @property
    def images_of_class(self) -> np.ndarray:
        """(K,) int64: images with a counted box of each class."""
        boxes = self.boxes
        keys = boxes.image_index[boxes.counted] * self.num_classes + boxes.class_index[boxes.counted]
        return np.bincount(np.unique(keys) % self.num_classes, minlength=self.num_classes)


def has_bit(bits: np.ndarray, threshold: int) -> np.ndarray:
    """(n,) bool."""
    return (bits >> np.uint16(threshold)) & np.uint16(1) != 0


def judge(annotations: AnnotationTable, predictions: Predictions) -> tuple[BoxResult, Judged]:
    """The evaluator's metrics (`evaluate_boxes`), and what they are made of, from the same matches.

    Raises UserError as `evaluate_boxes` does.
    """
    if annotations.federated:
        gt, within, outcome = lvis_ground_truth(annotations), lvis.in_image_top, lvis.NO_AREA_OUTCOME
    else:
        gt, within, outcome = coco_ground_truth(annotations), _in_coco_top, coco.NO_AREA_OUTCOME
    nearest = _NearestBoxes(annotations, gt, len(predictions), within)
    batches = nearest.watch(iter_batches(annotations, predictions, outcome))
    if annotations.federated:
        matches = lvis.match_lvis(annotations, batches)
        result = lvis.summarize_lvis(annotations, matches)
    else:
        matches = coco.match_coco(annotations, batches)
        result = coco.summarize_coco(annotations, matches)
        matches = matches.within(-1)
    return result, _judged(annotations, predictions, gt, matches, nearest)


def _in_coco_top(batch: DetectionBatch) -> np.ndarray:
    return coco.rank_in_class(batch) < coco.MAX_DETS[-1]


def _judged(
    annotations: AnnotationTable,
    predictions: Predictions,
    gt: GroundTruth,
    matches: Matches,
    nearest: _NearestBoxes,
) -> Judged:
    rows = matches.rows
    boxes = Boxes(
        rows=gt.rows,
        image_index=nearest.image_index,
        class_index=gt.category_index,
        counted=nearest.counted,
        found=_bits(matches.found),
        top_row=nearest.top_row,
    )
    return Judged(
        rows=rows,
        image_index=index_of(annotations.image_ids, predictions.image_ids[rows]).astype(np.int32),
        class_index=matches.category_index.astype(np.int32),
        scores=predictions.scores[rows].astype(np.float32),
        counts=~matches.ignore_unmatched[:, 0],
        hits=matches.hits,
        matched=_bits(matches.matched),
        ignored=_bits(matches.ignored),
        same_iou=nearest.iou[0][rows],
        other_iou=nearest.iou[1][rows],
        same_box=nearest.box[0][rows],
        other_box=nearest.box[1][rows],
        boxes=boxes,
        num_images=len(annotations),
        num_classes=len(annotations.categories),
    )


def _bits(bits: np.ndarray) -> np.ndarray:
    """(n,) uint16: the bits of boxes of any size."""
    return (bits & _ANY_SIZE).astype(np.uint16)


class _NearestBoxes:
    """Finds the boxes nearest to each of N predictions, whatever their class, while batches go by.

    iou: (2, N) float32.  box: (2, N) int32: of the own class, and of other classes; as in `Judged`.
    image_index, counted, top_row: (G,), as in `Boxes`.
    """

    def __init__(
        self,
        annotations: AnnotationTable,
        gt: GroundTruth,
        num_predictions: int,
        within: Callable[[DetectionBatch], np.ndarray],
    ) -> None:
        self.gt, self.within = gt, within
        self.image_index = annotations.image_index[gt.rows]
        self.counted = ~gt.ignored[:, 0] & ~gt.crowd
        self.edges = edges_of(gt.boxes_xywh)
        bounds = np.searchsorted(self.image_index, np.arange(len(annotations) + 1))
        self.first, self.count = bounds[:-1], np.diff(bounds)
        self.iou = np.zeros((2, num_predictions), np.float32)
        self.box = np.full((2, num_predictions), -1, np.int32)
        self.top_row = np.full(len(gt.rows), -1, np.int64)

    def watch(self, batches: Iterable[DetectionBatch]) -> Iterator[DetectionBatch]:
        """The same batches."""
        for batch in batches:
            self._add(batch)
            yield batch

    def _add(self, batch: DetectionBatch) -> None:
        used = np.flatnonzero(self.within(batch) & batch.has_area & (batch.category_index >= 0))
        rows, class_index = batch.prediction_rows(used), batch.category_index[used]
        edges = edges_of(batch.boxes_xywh[used])
        image_index = batch.image_index[used]
        first, count = self.first[image_index], self.count[image_index]
        for part in pair_slices(count):
            dt, gt, iou = overlapping(edges, self.edges, *expand_pairs(first, count, part), self.gt.crowd)
            near = np.flatnonzero((iou >= NEAR) & self.counted[gt])
            dt, gt, iou = dt[near], gt[near], iou[near]
            self._note_top(rows, dt, gt, iou)
            order = np.lexsort((iou, dt))
            dt, gt, iou = dt[order], gt[order], iou[order]
            same = class_index[dt] == self.gt.category_index[gt]
            for side, chosen in enumerate((same, ~same)):
                pairs = np.flatnonzero(chosen)
                # The last pair of a detection is its nearest box.
                pairs = pairs[np.append(dt[pairs[1:]] != dt[pairs[:-1]], True)] if len(pairs) else pairs
                self.iou[side, rows[dt[pairs]]] = iou[pairs]
                self.box[side, rows[dt[pairs]]] = gt[pairs]

    def _note_top(self, rows: np.ndarray, dt: np.ndarray, gt: np.ndarray, iou: np.ndarray) -> None:
        """Detections come image by image, best first: the first one near a box is its top."""
        close = np.flatnonzero(iou >= IOU_THRESHOLDS[0])
        box, first = np.unique(gt[close], return_index=True)
        new = self.top_row[box] < 0
        self.top_row[box[new]] = rows[dt[close[first[new]]]]
