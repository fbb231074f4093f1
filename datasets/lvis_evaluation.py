"""LVIS box evaluation: predictions stream to a file per rank, and are evaluated once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.classes import ClassTable
from datasets.lvis_metrics import LvisResult, evaluate_lvis
from datasets.predictions import ROW, Predictions, write_results_json
from datasets.store import AnnotationStore
from util.distributed import barrier
from util.errors import UserError, nearest
from util.logging import get_logger
from util.structures import Detections

MERGED = "predictions.npy"


class LvisEvaluator:
    """Takes detections picture by picture, on every rank; rank 0 computes the metrics.

    annotations: of the validation set.
    classes:     the model's columns; matched to the annotations' categories by name.
    output_dir:  `eval/` below it holds the predictions; all ranks must see the same folder.
    """

    def __init__(
        self,
        annotations: AnnotationStore,
        classes: ClassTable,
        output_dir: str | Path,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.annotations = annotations
        self.folder = Path(output_dir) / "eval"
        self.rank = rank
        self.world_size = world_size
        self.result: LvisResult | None = None
        id_of_name = {c.name: c.id for c in annotations.categories}
        self._category_ids = np.array([id_of_name.get(name, -1) for name in classes.names], dtype=np.int64)
        missing = [name for name in id_of_name if name not in set(classes.names)]
        if missing:
            raise UserError(
                f"class {missing[0]!r} of {annotations.name} is not among the {len(classes)} classes of the "
                f"model ({len(missing)} such).{nearest(missing[0], classes.names)}"
            )
        self._seen: set[int] = set()
        self._file = None

    def update(self, image_ids: Sequence[int], detections: Sequence[Detections]) -> None:
        """Adds the detections of some pictures, each of which may come once.

        Detections of columns that no category of the annotations stands for are left out.
        Raises ValueError for a picture that came before.
        """
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self._rank_file(self.rank).open("wb")
            self._seen = set()
        for image_id, found in zip(image_ids, detections, strict=True):
            if image_id in self._seen:
                raise ValueError(f"picture {image_id} was evaluated before")
            self._seen.add(int(image_id))
            category_ids = self._category_ids[found.labels.cpu().numpy()]
            rows = np.zeros(len(found), dtype=ROW)
            rows["image_id"] = image_id
            rows["category_id"] = category_ids
            rows["score"] = found.scores.float().cpu().numpy()
            rows["box_xyxy"] = found.boxes_xyxy.float().cpu().numpy()
            self._file.write(rows[category_ids >= 0].tobytes())

    def finish(self) -> dict[str, float] | None:
        """Waits for all ranks; rank 0 merges and evaluates. The evaluator is then ready for another round.

        The 13 metrics of LVIS, 0..1, -1 where no box counts; None on ranks above 0. The merged predictions
        stay as `eval/predictions.npy`, and the whole result (curves of every class) as `result`.
        """
        if self._file is None:
            self.update([], [])
        self._file.close()
        self._file = None
        barrier()
        if self.rank:
            return None
        self.result = evaluate_lvis(self.annotations, self.predictions(merge=True))
        return self.result.metrics

    def predictions(self, merge: bool = False) -> Predictions:
        """Everything that was found, in order of picture. `merge` first joins the ranks' files into one."""
        if merge:
            self._merge()
        return Predictions.from_rows(np.load(self.folder / MERGED))

    def write_results(self, path: str | Path) -> None:
        """Writes LVIS's results JSON (on rank 0, after `finish`)."""
        write_results_json(path, self.predictions())

    def _merge(self) -> None:
        files = [self._rank_file(rank) for rank in range(self.world_size)]
        for file in files:
            if not file.is_file():
                raise UserError(f"{file}: absent; all processes must share one output folder")
        rows = np.concatenate([np.fromfile(file, dtype=ROW) for file in files])
        # Stable: within a picture the order stays, so the result does not depend on the number of ranks.
        rows = rows[np.argsort(rows["image_id"], kind="stable")]
        np.save(self.folder / MERGED, rows)
        for file in files:
            file.unlink()
        get_logger().info("%d detections of %s in %s", len(rows), self.annotations.name, self.folder / MERGED)

    def _rank_file(self, rank: int) -> Path:
        return self.folder / f"predictions.rank{rank}.bin"
