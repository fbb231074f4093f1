"""The evaluator that the engine is handed: detections stream to files, and are evaluated once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.annotations.categories import ClassTable
from datasets.annotations.table import AnnotationTable
from datasets.evaluation.coco import evaluate_coco
from datasets.evaluation.lvis import evaluate_lvis
from datasets.evaluation.prediction_files import MERGED, PredictionStream, merge
from datasets.evaluation.predictions import Predictions, read_predictions, write_results_json
from datasets.evaluation.result import BoxResult
from util.distributed import all_gather_object
from util.errors import UserError, nearest
from util.logging import get_logger
from util.structures import Detections

RESULT = "result.json"


def evaluate_boxes(
    annotations: AnnotationTable, predictions: Predictions, *, fixed_ap: bool = False
) -> BoxResult:
    """LVIS's metrics where the annotations name absent classes; COCO's where everything is annotated.

    fixed_ap: Fixed AP as well, which is defined for LVIS only. Raises UserError as both do.
    """
    if annotations.federated:
        return evaluate_lvis(annotations, predictions, fixed_ap=fixed_ap)
    if fixed_ap:
        _check_fixed_ap(annotations)
    return evaluate_coco(annotations, predictions)


def _check_fixed_ap(annotations: AnnotationTable) -> None:
    if not annotations.federated:
        raise UserError(
            f"{annotations.name}: no `neg_category_ids`, so that COCO's AP is computed; Fixed AP is LVIS's: "
            "leave fixed_ap out"
        )


class BoxEvaluator:
    """Takes detections image by image, on every rank; rank 0 computes the metrics.

    annotations: of the validation set; they decide between LVIS's and COCO's metrics (`evaluate_boxes`).
    classes:     the model's columns; matched to the annotations' categories by name.
    output_dir:  `eval/` below it holds the predictions; all ranks must see the same folder.
    fixed_ap:    Fixed AP as well; UserError where it is not defined.
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
    ) -> None:
        if fixed_ap:
            _check_fixed_ap(annotations)
        self.annotations = annotations
        self.folder = Path(output_dir) / "eval"
        self.rank = rank
        self.world_size = world_size
        self.fixed_ap = fixed_ap
        self.result: BoxResult | None = None
        id_of_name = {c.name: c.id for c in annotations.categories}
        self._category_ids = np.array([id_of_name.get(name, -1) for name in classes.names], dtype=np.int64)
        self._known = np.array([name in id_of_name for name in classes.names], dtype=bool)
        missing = [name for name in id_of_name if name not in set(classes.names)]
        if missing:
            raise UserError(
                f"class {missing[0]!r} of {annotations.name} is not among the {len(classes)} classes of the "
                f"model ({len(missing)} such).{nearest(missing[0], classes.names)}"
            )
        self._stream: PredictionStream | None = None

    def update(self, image_ids: Sequence[int], detections: Sequence[Detections]) -> None:
        """Adds the detections of some images, each of which may come once.

        Detections of columns that no category of the annotations stands for are left out.
        Raises ValueError for an image that came before.
        """
        if self._stream is None:
            self._stream = PredictionStream(self.folder, self.rank)
        for image_id, found in zip(image_ids, detections, strict=True):
            labels = found.labels.cpu().numpy()
            known = self._known[labels]
            self._stream.append(
                int(image_id),
                self._category_ids[labels[known]],
                found.scores.float().cpu().numpy()[known],
                found.boxes_xyxy.float().cpu().numpy()[known],
            )

    def finish(self) -> dict[str, float] | None:
        """Waits for all ranks; rank 0 merges and evaluates. The evaluator is then ready for another round.

        The metrics, 0..1, -1 where no box counts; None on ranks above 0. Below `eval/` stay the merged
        predictions (`predictions.npy`) and the result with every class (`result.json`), also as `result`.
        """
        if self._stream is None:
            self.update([], [])
        self._stream.close()
        images = sum(all_gather_object(len(self._stream.images)))
        self._stream = None
        if self.rank:
            return None
        if images < len(self.annotations):
            get_logger().warning(
                "%d of %d images were evaluated; the boxes of the others count as missed",
                images,
                len(self.annotations),
            )
        predictions = read_predictions(merge(self.folder, self.world_size))
        where = self.folder / MERGED
        get_logger().info("%d detections of %s in %s", len(predictions), self.annotations.name, where)
        self.result = evaluate_boxes(self.annotations, predictions, fixed_ap=self.fixed_ap)
        for protocol in self.result.protocols:
            get_logger().info("%s", protocol)
        self.result.write(self.folder / RESULT)
        return self.result.metrics

    def predictions(self) -> Predictions:
        """Everything that was found, in order of image (on rank 0, after `finish`)."""
        return read_predictions(self.folder / MERGED)

    def write_results(self, path: str | Path) -> None:
        """Writes the results JSON of LVIS and COCO (on rank 0, after `finish`)."""
        write_results_json(path, self.predictions())
