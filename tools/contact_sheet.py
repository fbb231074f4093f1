"""Contact sheet of validation images, in pairs: ground truth on the left, detections on the right.

python tools/contact_sheet.py --annotations DATA/lvis_v1/annotations/lvis_v1_val.json \\
    --predictions RUN/eval/predictions.npy --output sheet.png

Predictions are LVIS results (JSON) or a run's predictions.npy. File names are those of training; they are
looked up below `--images`, by default the folder above the one with the annotations.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.annotations.cache import open_annotations
from datasets.annotations.table import AnnotationTable
from datasets.evaluation.predictions import Predictions, read_predictions
from datasets.images.reader import ImageFolder
from inference.drawing import LabelledBox, draw_boxes
from util.errors import UserError, run_command

_GAP = 10
_CAPTION = 22
_MAX_BOXES = 30


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--annotations", type=Path, required=True, help="annotations of LVIS or COCO (JSON)")
    parser.add_argument(
        "--predictions", type=Path, required=True, help="results JSON, or predictions.npy of a run"
    )
    parser.add_argument("--images", type=Path, help="folder with the images, such as the one of val2017")
    parser.add_argument("--output", type=Path, required=True, help="PNG to write")
    parser.add_argument("--count", type=int, default=12, help="images on the sheet")
    parser.add_argument("--columns", type=int, default=3, help="pairs per row")
    parser.add_argument("--side", type=int, default=320, help="short side of an image on the sheet, pixels")
    parser.add_argument("--score", type=float, default=0.3, help="lowest score that is drawn")
    return parser.parse_args(words)


def choose_images(annotations: AnnotationTable, count: int) -> list[int]:
    """Ascending indices of up to `count` annotated images, evenly spread; half of them show a rare class."""
    rare = np.array([c.frequency == "r" for c in annotations.categories], dtype=bool)
    annotated = np.unique(annotations.image_index)
    with_rare = np.unique(annotations.image_index[rare[annotations.category_index]])
    # First what is evenly spread, then whatever fills up the sheet.
    spread = (_evenly_spread(with_rare, count // 2), _evenly_spread(annotated, count), annotated)
    return sorted(list(dict.fromkeys(np.concatenate(spread).tolist()))[:count])


def _evenly_spread(values: np.ndarray, count: int) -> np.ndarray:
    return values[np.linspace(0, len(values) - 1, count).astype(int)] if len(values) else values


def ground_truth(annotations: AnnotationTable, image_index: int) -> list[LabelledBox]:
    """The annotated boxes of one image."""
    rows = annotations.rows(image_index)
    names = (annotations.categories[k].name for k in annotations.category_index[rows])
    boxes = zip(map(_xyxy, annotations.boxes_xywh[rows]), names, strict=True)
    return [LabelledBox(box_xyxy, name) for box_xyxy, name in boxes]


def detections(
    predictions: Predictions, image_id: int, names: dict[int, str], min_score: float
) -> list[LabelledBox]:
    """The detections of one image with a score of at least `min_score`, best first. names: by category id."""
    rows = np.flatnonzero((predictions.image_ids == image_id) & (predictions.scores >= min_score))
    rows = rows[np.argsort(-predictions.scores[rows], kind="stable")][:_MAX_BOXES]
    return [
        LabelledBox(_xyxy(box_xywh), names.get(category_id, str(category_id)), score)
        for box_xywh, category_id, score in zip(
            predictions.boxes_xywh(rows),
            predictions.category_ids[rows].tolist(),
            predictions.scores[rows].tolist(),
            strict=True,
        )
    ]


def _xyxy(box_xywh: np.ndarray) -> tuple[float, float, float, float]:
    x, y, width, height = box_xywh.tolist()
    return x, y, x + width, y + height


def pair(image: Image.Image, gt: list[LabelledBox], dt: list[LabelledBox], side: int) -> Image.Image:
    """Ground truth and detections side by side, no larger than a short side of `side` pixels."""
    halves = [_shrink(draw_boxes(image, boxes, min_side=side), side) for boxes in (gt, dt)]
    width, height = halves[0].size
    both = Image.new("RGB", (2 * width + 2, height), "white")
    both.paste(halves[0], (0, 0))
    both.paste(halves[1], (width + 2, 0))
    return both


def _shrink(image: Image.Image, side: int) -> Image.Image:
    scale = side / min(image.size)
    if scale >= 1:
        return image
    return image.resize([round(v * scale) for v in image.size], Image.Resampling.LANCZOS)


def sheet(pairs: Sequence[Image.Image], columns: int, caption: str) -> Image.Image:
    """The pairs in rows of `columns`, each cell as large as the largest pair."""
    columns = min(columns, len(pairs))
    width, height = max(p.width for p in pairs) + _GAP, max(p.height for p in pairs) + _GAP
    rows = -(-len(pairs) // columns)
    page = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP + _CAPTION), "white")
    ImageDraw.Draw(page).text((_GAP, 3), caption, fill="black", font=ImageFont.load_default(14))
    for i, image in enumerate(pairs):
        page.paste(image, (_GAP + i % columns * width, _CAPTION + _GAP // 2 + i // columns * height))
    return page


def main(words: list[str] | None = None) -> int:
    """Writes the sheet. Raises UserError for a wrong flag and for a file that cannot be read."""
    args = parse_arguments(words)
    if min(args.count, args.columns, args.side) < 1:
        raise UserError("--count, --columns and --side must be at least 1.")
    annotations = open_annotations(args.annotations)
    predictions = read_predictions(args.predictions)
    images = ImageFolder(args.images or args.annotations.resolve().parent.parent)
    names = {c.id: c.name for c in annotations.categories}
    pairs = []
    for image_index in choose_images(annotations, args.count):
        image = Image.fromarray(images.read(annotations.file_names[image_index]))
        found = detections(predictions, int(annotations.image_ids[image_index]), names, args.score)
        pairs.append(pair(image, ground_truth(annotations, image_index), found, args.side))
    if not pairs:
        raise UserError(f"{args.annotations}: no image has an annotation.")
    caption = f"Left: ground truth. Right: detections with a score of at least {args.score:g}."
    args.output.parent.mkdir(parents=True, exist_ok=True)
    sheet(pairs, args.columns, caption).save(args.output)
    print(f"{args.output}: {len(pairs)} images")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
