"""The evaluator that the engine is given: streams detections to files, evaluates them at the end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.annotations.categories import ClassTable
from datasets.annotations.table import AnnotationTable
from datasets.annotations.union import Part
from datasets.evaluation.class_table import class_table
from datasets.evaluation.coco import evaluate_coco
from datasets.evaluation.dataset_record import DatasetRecord
from datasets.evaluation.ground_truth import coco_ground_truth, lvis_ground_truth
from datasets.evaluation.hints import hints, is_near_zero
from datasets.evaluation.lvis import evaluate_lvis
from datasets.evaluation.parts import own_predictions, own_table
from datasets.evaluation.predictions import (
    PREDICTIONS_FILE,
    Predictions,
    PredictionStream,
    merge_rank_files,
    read_predictions,
    write_results_json,
)
from datasets.evaluation.result import BoxResult
from util.distributed import all_gather_object
from util.errors import UserError, listed, nearest
from util.logging import get_logger
from util.structures import Detections

RESULT_FILE = "result.json"
_MOST_NAMED = 5


def evaluate_boxes(
    annotations: AnnotationTable, predictions: Predictions, *, fixed_ap: bool = False
) -> BoxResult:
    """LVIS metrics if the annotations list verified absent classes (federated), else COCO metrics.

    fixed_ap: adds Fixed AP, which is defined for LVIS only.
    Raises UserError for fixed_ap without LVIS, and as `evaluate_lvis` and `evaluate_coco` do.
    """
    if has_id_zero(annotations):
        get_logger().info(
            "%s: has an annotation of id 0; a match with it counts, which lvis and pycocotools take for none",
            annotations.name,
        )
    if annotations.federated:
        return evaluate_lvis(annotations, predictions, fixed_ap=fixed_ap)
    _check_fixed_ap(annotations, fixed_ap)
    return evaluate_coco(annotations, predictions)


def has_id_zero(annotations: AnnotationTable) -> bool:
    """Whether an annotation has the id 0, which `lvis` and `pycocotools` take for "no box matched".

    What matches that box is a false positive to them: perfect predictions get less than 1.
    """
    return bool((annotations.annotation_ids == 0).any())


def name_undefined(annotations: AnnotationTable) -> None:
    """Warns where no box can be found, before anybody waits for metrics that cannot be.

    Where that is so of some classes, one line names them: means of APs leave them out.
    """
    gt = lvis_ground_truth(annotations) if annotations.federated else coco_ground_truth(annotations)
    found = set(gt.category_index[~gt.ignored[:, 0]].tolist())
    absent = [repr(c.name) for k, c in enumerate(annotations.categories) if k not in found]
    if found:
        if absent:
            get_logger().info(
                "%s: %d of %d classes have no box that counts, so no AP: %s",
                annotations.name, len(absent), len(annotations.categories), listed(absent, _MOST_NAMED),
            )  # fmt: skip
        return
    count = len(annotations.areas)
    what = f"its {count} boxes are all crowds, ignored or without size" if count else "it has no boxes"
    get_logger().warning(
        "%s: %s, so AP and all other metrics will be undefined (-), and no checkpoint the best",
        annotations.name,
        what,
    )


def _check_fixed_ap(annotations: AnnotationTable, fixed_ap: bool) -> None:
    if fixed_ap and not annotations.federated:
        raise UserError(
            f"{annotations.name}: no image has `neg_category_ids`, so COCO metrics are computed; Fixed AP "
            "is LVIS only: leave fixed_ap out"
        )


class BoxEvaluator:
    """Takes detections image by image on every rank; rank 0 computes the metrics.

    annotations: of the validation set; decide between LVIS and COCO metrics (`evaluate_boxes`).
    classes:     the model's columns, matched to the annotations' categories by name.
    output_dir:  shared by all ranks; its folder `eval/` holds predictions and result.
    fixed_ap:    adds Fixed AP.
    per_class:   also logs a table of every class's AP, with the training images that `classes` states.
    record:      of the annotations; left beside the predictions, for reports.
    parts:       the sets of united annotations: each is evaluated by itself too.
    damaged_ids: gives the ids of this rank's images that could not be read.
    Raises UserError for a category without a column, and for fixed_ap without LVIS.
    """

    def __init__(
        self,
        annotations: AnnotationTable,
        classes: ClassTable,
        output_dir: str | Path,
        rank: int = 0,
        world_size: int = 1,
        *,
        fixed_ap: bool = False,
        per_class: bool = False,
        record: DatasetRecord | None = None,
        parts: Sequence[Part] = (),
        damaged_ids: Callable[[], Collection[int]] = tuple,
    ) -> None:
        _check_fixed_ap(annotations, fixed_ap)
        self.annotations = annotations
        self.folder = Path(output_dir) / "eval"
        self.rank = rank
        self.world_size = world_size
        self.fixed_ap = fixed_ap
        self.record = record
        self.parts = parts
        self._damaged_ids = damaged_ids
        columns = classes.columns_of(annotations.categories)
        if missing := [annotations.categories[i].name for i in np.flatnonzero(columns < 0)]:
            raise UserError(
                f"class {missing[0]!r} of {annotations.name} is not among the {len(classes)} classes of the "
                f"model ({len(missing)} missing in all).{nearest(missing[0], classes.names)}"
            )
        self._image_counts = [classes.image_counts[column] for column in columns] if per_class else None
        self._known = np.isin(np.arange(len(classes)), columns)
        self._category_ids = np.zeros(len(classes), np.int64)
        self._category_ids[columns] = annotations.category_ids
        self._stream: PredictionStream | None = None

    def update(self, image_ids: Sequence[int], detections: Sequence[Detections]) -> None:
        """Adds the detections of some images.

        Detections of columns without a category in the annotations are dropped.
        Raises ValueError for an image that was added before.
        """
        if self._stream is None:
            self._stream = PredictionStream(self.folder, self.rank)
        for image_id, dt in zip(image_ids, detections, strict=True):
            labels = dt.labels.cpu().numpy()
            known = self._known[labels]
            self._stream.append(
                int(image_id),
                self._category_ids[labels[known]],
                dt.scores.float().cpu().numpy()[known],
                dt.boxes_xyxy.float().cpu().numpy()[known],
            )

    def finish(self) -> dict[str, float] | None:
        """Waits for all ranks; rank 0 merges and evaluates. The evaluator can then be used again.

        Returns the metrics, 0..1, -1 where there is no ground truth; None on ranks above 0. Rank 0 leaves
        `predictions.npy` and `result.json` (metrics and every class) in `eval/`. Images that could not be
        read are left out of the metrics, with a warning. Raises UserError where that leaves no image.
        The metrics of the set NAME of a union are `NAME/AP` and so on, and it has a `result_NAME.json`.
        """
        if self._stream is None:
            self.update([], [])
        self._stream.close()
        evaluated = self._stream.image_ids
        num_images = sum(all_gather_object(len(evaluated)))
        # A file that could not be read once may be there again.
        gone = all_gather_object([i for i in self._damaged_ids() if i not in evaluated])
        self._stream = None
        if self.rank:
            return None
        damaged = tuple(sorted(i for part in gone for i in part))
        annotations = self._judged(damaged, num_images)
        path = merge_rank_files(self.folder, self.world_size)
        predictions = read_predictions(path)
        get_logger().info("%d detections of %s in %s", len(predictions), self.annotations.name, path)
        result = evaluate_boxes(annotations, predictions, fixed_ap=self.fixed_ap)
        result = replace(result, images=len(annotations), damaged_image_ids=damaged)
        result.metrics.update(self._metrics_of_parts(predictions, damaged))
        for protocol in result.protocols:
            get_logger().info("%s", protocol)
        if is_near_zero(result.metrics, predictions):
            # A model that has learnt little yet has none of these faults, and gets no hint.
            for hint in hints(annotations, predictions):
                get_logger().info("AP50 is near 0; a hint: %s", hint)
        result.write(self.folder / RESULT_FILE)
        if self.record is not None:
            replace(self.record, damaged_image_ids=damaged).write(self.folder)
        if self._image_counts is not None:
            table = class_table(result.classes, self._image_counts)
            get_logger().info("AP of each class, the worst of each group first\n%s", table)
        return result.metrics

    def _metrics_of_parts(self, predictions: Predictions, damaged: Collection[int]) -> dict[str, float]:
        metrics = {}
        for part in self.parts:
            table = own_table(part, self.annotations, damaged)
            if not len(table):
                get_logger().warning("%s: none of its images can be read, so it has no metrics", part.name)
                continue
            own = own_predictions(part, self.annotations, predictions)
            result = evaluate_boxes(table, own, fixed_ap=self.fixed_ap and table.federated)
            get_logger().info("%s: %d images, %s", part.name, len(table), ", ".join(result.protocols))
            replace(result, images=len(table)).write(self.folder / f"result_{part.name}.json")
            metrics |= {f"{part.name}/{name}": value for name, value in result.metrics.items()}
        return metrics

    def _judged(self, damaged: Collection[int], evaluated: int) -> AnnotationTable:
        """The annotations without the damaged images; says what is missing."""
        annotations, count = self.annotations.without(damaged), len(self.annotations)
        if damaged:
            get_logger().warning(
                "the metrics are over %d of the %d images of %s: %d could not be read",
                len(annotations), count, annotations.name, len(damaged),
            )  # fmt: skip
        if damaged and not len(annotations):
            raise UserError(f"{annotations.name}: none of its {count} images can be read")
        if evaluated < len(annotations):
            get_logger().warning(
                "only %d of %d images were evaluated; the boxes of the others count as missed",
                evaluated, len(annotations),
            )  # fmt: skip
        return annotations

    def write_results(self, path: str | Path) -> None:
        """Writes the results JSON of LVIS and COCO (on rank 0, after `finish`).

        Of a union, one for each set NAME, in its own ids: `NAME` stands behind the stem of `path`.
        """
        path, predictions = Path(path), read_predictions(self.folder / PREDICTIONS_FILE)
        if not self.parts:
            write_results_json(path, predictions)
        for part in self.parts:
            own = own_predictions(part, self.annotations, predictions)
            write_results_json(path.with_name(f"{path.stem}_{part.name}{path.suffix}"), own)
