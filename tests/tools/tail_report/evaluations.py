"""Evaluations on disk without a model: the tiny data, its boxes as detections, some of them wrong."""

from pathlib import Path

import numpy as np

from datasets.annotations.discovery import open_detection
from datasets.annotations.table import AnnotationTable
from datasets.evaluation.dataset_record import record_of
from datasets.evaluation.evaluator import evaluate_boxes
from datasets.evaluation.predictions import ROW, Predictions
from tests.datasets import tiny


def write_data(root: Path, count: int = 8) -> Path:
    """Training, validation and image-level data below `root`, which is returned."""
    tiny.write_detection(root, "train", 9)
    tiny.write_detection(root, "val", count, first_id=100)
    tiny.write_image_level(root, 7)
    return root


def write_evaluation(folder: Path, data: Path, *, seed: int = 0, wrong: float = 0.3) -> Path:
    """The output of `main.py --eval` on LVIS data."""
    annotations, _ = open_detection(data, "val")
    write_files(folder, annotations, detections(annotations, seed, wrong))
    write_record(folder, annotations, data / "lvis_v1" / "annotations" / "lvis_v1_val.json", data, "lvis")
    return folder


def detections(annotations: AnnotationTable, seed: int, wrong: float) -> np.ndarray:
    """(2 N,) of ROW: two for each box, off by a little and, at a share of `wrong`, of another class."""
    rng = np.random.default_rng(seed)
    count = len(annotations.boxes_xywh)
    rows = np.zeros(2 * count, ROW)
    box = np.tile(annotations.boxes_xywh, (2, 1)) + rng.normal(0, 1.5, (2 * count, 4))
    rows["image_id"] = np.tile(annotations.image_ids[annotations.image_index], 2)
    category = np.tile(annotations.category_index, 2)
    category = np.where(rng.random(2 * count) < wrong, (category + 1) % len(annotations.categories), category)
    rows["category_id"] = annotations.category_ids[category]
    rows["score"] = rng.random(2 * count)
    rows["box_xyxy"] = np.concatenate((box[:, :2], box[:, :2] + np.maximum(box[:, 2:], 1)), 1)
    return rows[np.argsort(rows["image_id"], kind="stable")]


def write_files(folder: Path, annotations: AnnotationTable, rows: np.ndarray) -> Path:
    """What every version of the evaluator leaves."""
    (folder / "eval").mkdir(parents=True)
    np.save(folder / "eval" / "predictions.npy", rows)
    evaluate_boxes(annotations, Predictions.from_rows(rows)).write(folder / "eval" / "result.json")
    return folder


def write_record(
    folder: Path, annotations: AnnotationTable, path: Path, data: Path, dataset_file: str
) -> None:
    """dataset.json, without counts."""
    images = data / "lvis_v1" if dataset_file == "lvis" else data
    record = record_of(annotations, paths=[path], images=images, data_path=data, dataset_file=dataset_file)
    record.write(folder / "eval")
