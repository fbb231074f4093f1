"""AP of tiled prediction on images that are larger than those the model was trained with.

    python benchmarks/tiled_prediction.py CKPT --annotations lvis_v1_val.json --images DATA/lvis_v1

Puts ACROSS x ACROSS images of a validation set, all of one size, into one mosaic; the network sees it whole
at 1/ACROSS of the scale it knows. Compares the AP of the single images, of the mosaics seen whole, and of the
mosaics in tiles as large as a single image, most of which lie across several. A detection belongs to the
image in which its centre lies, so all are evaluated with the same annotations.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from datasets.annotations.json_reader import read_annotations
from datasets.annotations.table import AnnotationTable
from datasets.evaluation.evaluator import evaluate_boxes
from datasets.evaluation.predictions import Predictions
from datasets.images.reader import ImageFolder
from inference.load import load_predictor
from inference.prediction import Prediction
from inference.predictor import Predictor, Tile
from util.errors import UserError, run_command

METRICS = ("AP", "APr", "APc", "APf", "APs", "APm", "APl")


def make_mosaic(images: Sequence[np.ndarray], across: int) -> np.ndarray:
    """(N, H, W, 3) -> (across * H, across * W, 3), row by row; black where there are too few."""
    height, width = images[0].shape[:2]
    mosaic = np.zeros((across, height, across, width, 3), np.uint8)
    for place, image in enumerate(images):
        mosaic[place // across, :, place % across] = image
    return mosaic.reshape(across * height, across * width, 3)


def split_mosaic(found: Prediction, count: int, across: int) -> Iterator[Prediction]:
    """The detections of each of a mosaic's `count` images, in its own pixels."""
    height, width = (side // across for side in found.size)
    centres = (found.boxes_xyxy[:, :2] + found.boxes_xyxy[:, 2:]) / 2
    column, row = (centres // (width, height)).clip(0, across - 1).astype(int).T
    for place in range(count):
        inside = found.select(row * across + column == place)
        shift = np.array([place % across * width, place // across * height] * 2, np.float32)
        yield Prediction(
            inside.names, inside.scores, inside.boxes_xyxy - shift, inside.labels, (height, width)
        )


def average_precision(
    predictor: Predictor, table: AnnotationTable, images: Sequence[np.ndarray], across: int, tile: Tile | None
) -> dict[str, float]:
    """AP and its parts, 0..100. images: of the table, in its order."""
    groups = [images[start : start + across**2] for start in range(0, len(images), across**2)]
    mosaics = (make_mosaic(group, across) for group in groups)
    found: list[Prediction] = []
    for group, seen in zip(groups, predictor.stream(mosaics, score=0, tile=tile, batch_size=8), strict=True):
        found += split_mosaic(seen, len(group), across)
    ids = {category.name: category.id for category in table.categories}
    columns = np.array([ids[name] for name in predictor.class_names])
    predictions = Predictions(
        image_ids=np.repeat(table.image_ids, [len(p) for p in found]),
        category_ids=columns[np.concatenate([p.labels for p in found])],
        scores=np.concatenate([p.scores for p in found]),
        boxes=np.concatenate([p.boxes_xyxy for p in found]),
        is_xyxy=True,
    )
    metrics = evaluate_boxes(table, predictions).metrics
    return {name: round(100 * metrics[name], 2) for name in METRICS if name in metrics}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="folder with the images")
    parser.add_argument("--across", type=int, nargs="+", default=[2, 4], help="images a side of a mosaic")
    parser.add_argument("--overlap", type=float, nargs="+", default=[0.2, 0.5])
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the table to this file")
    args = parser.parse_args(arguments)
    table, reader = read_annotations(args.annotations), ImageFolder(args.images)
    reader.open_archives()
    images = [reader.read(table.file_names[row]) for row in range(len(table))]
    if len({image.shape for image in images}) > 1:
        raise UserError(f"{args.annotations}: its images are not of one size, so they make no mosaic")
    side = max(images[0].shape)
    predictor = load_predictor(args.checkpoint, device="cpu")
    results = {}
    for across in [1, *args.across]:
        tiles: list[Tile | None] = [None, *((side, overlap) for overlap in args.overlap)]
        for tile in tiles if across > 1 else [None]:
            how = f"tiles of {side}, overlap {tile[1]}" if isinstance(tile, tuple) else "whole"
            metrics = average_precision(predictor, table, images, across, tile)
            if not results:
                print(f"| mosaic | seen | {' | '.join(metrics)} |\n| --- | --- |{' ---: |' * len(metrics)}")
            values = " | ".join(f"{value:.2f}" for value in metrics.values())
            print(f"| {across}x{across} | {how} | {values} |", flush=True)
            results[f"{across}x{across}, {how}"] = metrics
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
