"""The reference evaluators: `lvis`, made to work on current NumPy, and `pycocotools`.

lvis 0.5.3 uses `np.float`, removed in NumPy 1.24, and configures the root logger on import. Only its
evaluation module is given a NumPy that still has `float`; nothing else changes.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from datasets.evaluation.coco import METRICS
from util.errors import UserError, first_line


class _OldNumPy(ModuleType):
    """NumPy plus the one alias that lvis needs."""

    float = float

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def reference_metrics(annotations_path: str, results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The 13 LVIS box metrics by the `lvis` package, 0..1, under its names.

    results: dicts with image_id, category_id, bbox (xywh) and score; not modified.
    Raises UserError if lvis is not installed, or cannot evaluate these.
    """
    lvis = lvis_package()
    with _one_line("lvis", annotations_path):
        gt = lvis.LVIS(str(annotations_path))
        evaluation = lvis.LVISEval(gt, lvis.LVISResults(gt, copy.deepcopy(list(results))), "bbox")
        evaluation.run()
    return {name: float(value) for name, value in evaluation.get_results().items()}


@contextlib.contextmanager
def _one_line(package: str, annotations_path: str) -> Iterator[None]:
    """The packages need keys that we do without, and look them up unchecked."""
    try:
        yield
    except Exception as error:
        kind = type(error).__name__
        raise UserError(
            f"{annotations_path}: {package} cannot evaluate it ({kind}: {first_line(error)})"
        ) from error


def lvis_package() -> ModuleType:
    """The package, with a working evaluation module. Raises UserError if it is not installed."""
    root = logging.getLogger()
    # logging.basicConfig does nothing if the root logger has a handler.
    guard = logging.NullHandler()
    level = root.level
    root.addHandler(guard)
    try:
        lvis = importlib.import_module("lvis")
        evaluation = importlib.import_module("lvis.eval")
    except ImportError as error:
        raise UserError(f"the reference needs the lvis package: {error}") from None
    finally:
        root.removeHandler(guard)
        root.setLevel(level)
    evaluation.np = _OldNumPy("numpy")  # type: ignore[attr-defined]
    for name in ("lvis.lvis", "lvis.results", "lvis.eval"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return lvis


def coco_reference_metrics(annotations_path: str, results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The 12 COCO box metrics by `pycocotools`, 0..1.

    results: at least one dict with image_id, category_id, bbox (xywh) and score; not modified.
    Raises UserError where pycocotools cannot evaluate these.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # pycocotools prints its progress.
    with contextlib.redirect_stdout(io.StringIO()), _one_line("pycocotools", annotations_path):
        gt = COCO(str(annotations_path))
        evaluation = COCOeval(gt, gt.loadRes(copy.deepcopy(list(results))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(METRICS, evaluation.stats.tolist(), strict=True))
