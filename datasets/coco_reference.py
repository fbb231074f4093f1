"""`pycocotools` as the reference for COCO's box metrics."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Mapping, Sequence
from typing import Any

from datasets.coco_metrics import METRICS


def coco_reference_metrics(annotations_path: str, results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """COCO's 12 box metrics by `pycocotools`, 0..1.

    results: at least one dict with image_id, category_id, bbox (xywh) and score; not modified.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # It prints what it does.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations_path))
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(list(results))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(METRICS, evaluation.stats.tolist(), strict=True))
