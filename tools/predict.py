"""Runs a trained model on images: draws the detections and writes them as JSON.

python tools/predict.py CKPT IMAGE|FOLDER... [--output DIR] [--score 0.3]

Writes DIR/NAME.png for every image, and DIR/predictions.json. A checkpoint of this project is all it needs;
an official one has no class names, so it needs `--annotations`, an LVIS file.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from datasets.images.preprocess import ImageError
from inference.inputs import find_images, read_image
from inference.load import load_predictor
from inference.predictor import Predictor
from inference.thresholds import parse_score
from util.errors import UserError, run_command

_MAX_DETECTIONS = 100


def predict(
    predictor: Predictor, images: Iterable[Path], output: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """Draws the detections of every image, below `output`.

    Returns:
        The entries of the JSON, and an error message for every image that could not be read.
    """
    entries, damaged = [], []
    for path in images:
        try:
            pixels, _ = read_image(path)
        except ImageError as error:
            damaged.append(str(error))
            continue
        found = predictor.detect([pixels])[0]
        found = found.select(np.arange(min(len(found), _MAX_DETECTIONS)))
        boxes = found.labelled_boxes()
        drawn = output / f"{path.name}.png"
        drawn.parent.mkdir(parents=True, exist_ok=True)
        found.draw(pixels).save(drawn)
        entries.append(
            {
                "file": str(path),
                "width": pixels.shape[1],
                "height": pixels.shape[0],
                "drawn": str(drawn),
                "detections": [
                    {"name": b.name, "score": b.score, "box_xyxy": [round(v, 2) for v in b.box_xyxy]}
                    for b in boxes
                ],
            }
        )
    return entries, damaged


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path, nargs="+", help="images, or folders of images")
    parser.add_argument("--output", type=Path, default=Path("predictions"), help="folder to write to")
    parser.add_argument(
        "--score", default="0.3", help="lowest score that is kept: a number, or rare=0.2,others=0.3,NAME=0.5"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--annotations", type=Path, help="LVIS file with the class names of an official checkpoint"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Writes drawings and JSON. Raises UserError if the checkpoint or every image is unreadable."""
    args = parse_arguments(arguments)
    score = parse_score(args.score)
    images = find_images(args.images)
    predictor = load_predictor(args.checkpoint, device=args.device, score=score, annotations=args.annotations)
    entries, damaged = predict(predictor, images, args.output)
    for line in damaged:
        print(line, file=sys.stderr)
    if not entries:
        raise UserError(f"none of the {len(images)} images can be read.")
    path = args.output / "predictions.json"
    path.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    count = sum(len(e["detections"]) for e in entries)
    skipped = f", {len(damaged)} unreadable" if damaged else ""
    print(f"{path}: {count} detections in {len(entries)} images{skipped}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
