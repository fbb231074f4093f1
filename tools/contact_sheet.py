"""A sheet of validation images: what is there on the left of each pair, what was found on the right.

python tools/contact_sheet.py --annotations DATA/lvis_v1/annotations/lvis_v1_val.json \\
    --predictions RUN/eval/predictions.npy --output sheet.png

Predictions are LVIS results (JSON) or a run's predictions.npy. Images are found by the last two parts of
`coco_url` below `--images`, which is the folder above the one of the annotations unless given.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.annotations.json_errors import load_json
from datasets.evaluation.predictions import Predictions, read_predictions
from tools.drawing import LabelledBox, draw_boxes
from util.errors import UserError

_GAP = 10
_CAPTION = 22
_MOST_BOXES = 30


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--annotations", type=Path, required=True, help="LVIS annotations (JSON)")
    parser.add_argument(
        "--predictions", type=Path, required=True, help="LVIS results JSON, or predictions.npy"
    )
    parser.add_argument("--images", type=Path, help="folder that holds train2017 and val2017")
    parser.add_argument("--output", type=Path, required=True, help="PNG to write")
    parser.add_argument("--count", type=int, default=12, help="images on the sheet")
    parser.add_argument("--columns", type=int, default=3, help="pairs in a row")
    parser.add_argument("--side", type=int, default=320, help="short side of an image on the sheet, pixels")
    parser.add_argument("--score", type=float, default=0.3, help="least score of a detection that is drawn")
    return parser.parse_args(arguments)


def image_path(root: Path, image: dict) -> Path:
    """The file of an LVIS image entry below `root`."""
    name = image.get("file_name") or "/".join(image["coco_url"].split("/")[-2:])
    return root / name


def chosen_images(content: dict, count: int) -> list[dict]:
    """`count` annotated images, evenly spread over the file; half of them show a rare class."""
    rare = {c["id"] for c in content["categories"] if c.get("frequency") == "r"}
    classes: dict[int, set[int]] = {}
    for annotation in content["annotations"]:
        classes.setdefault(annotation["image_id"], set()).add(annotation["category_id"])
    images = [i for i in content["images"] if i["id"] in classes]
    with_rare = [i for i in images if classes[i["id"]] & rare]
    picked: dict[int, dict] = {}
    for pool, share in ((with_rare, count // 2), (images, count)):
        for position in np.linspace(0, max(len(pool) - 1, 0), max(share, 1)).astype(int):
            if len(pool) and len(picked) < count:
                picked.setdefault(pool[position]["id"], pool[position])
    for image in images:
        if len(picked) < count:
            picked.setdefault(image["id"], image)
    return [i for i in images if i["id"] in picked]


def truth_boxes(content: dict, image_id: int, names: dict[int, str]) -> list[LabelledBox]:
    """Ground truth of one image."""
    boxes = [a for a in content["annotations"] if a["image_id"] == image_id]
    return [LabelledBox(_corners(a["bbox"]), names[a["category_id"]]) for a in boxes]


def found_boxes(
    predictions: Predictions, image_id: int, names: dict[int, str], least_score: float
) -> list[LabelledBox]:
    """Detections of one image from `least_score` on, best first."""
    rows = np.flatnonzero((predictions.image_ids == image_id) & (predictions.scores >= least_score))
    rows = rows[np.argsort(-predictions.scores[rows], kind="stable")][:_MOST_BOXES]
    return [
        LabelledBox(
            _corners(box_xywh),
            names.get(int(predictions.category_ids[r]), str(predictions.category_ids[r])),
            float(predictions.scores[r]),
        )
        for r, box_xywh in zip(rows, predictions.boxes_xywh(rows), strict=True)
    ]


def _corners(box_xywh: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = (float(v) for v in box_xywh)
    return x, y, x + width, y + height


def pair(image: Image.Image, truth: list[LabelledBox], found: list[LabelledBox], side: int) -> Image.Image:
    """Ground truth and detections side by side."""
    halves = [_shrunk(draw_boxes(image, boxes, least_side=side), side) for boxes in (truth, found)]
    width, height = halves[0].size
    both = Image.new("RGB", (2 * width + 2, height), "white")
    both.paste(halves[0], (0, 0))
    both.paste(halves[1], (width + 2, 0))
    return both


def _shrunk(image: Image.Image, side: int) -> Image.Image:
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


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    if min(args.count, args.columns, args.side) < 1:
        raise UserError("--count, --columns and --side must be at least 1.")
    content = load_json(args.annotations)
    predictions = read_predictions(args.predictions)
    root = args.images or args.annotations.resolve().parent.parent
    names = {c["id"]: c["name"] for c in content["categories"]}
    pairs = []
    for image in chosen_images(content, args.count):
        path = image_path(root, image)
        try:
            with Image.open(path) as file:
                pixels = file.convert("RGB")
        except (OSError, SyntaxError) as error:
            raise UserError(f"{path}: cannot be read as an image ({error}).") from error
        found = found_boxes(predictions, image["id"], names, args.score)
        pairs.append(pair(pixels, truth_boxes(content, image["id"], names), found, args.side))
    if not pairs:
        raise UserError(f"{args.annotations}: no image has an annotation.")
    caption = f"left: ground truth.  right: detections with a score from {args.score:g} on."
    args.output.parent.mkdir(parents=True, exist_ok=True)
    sheet(pairs, args.columns, caption).save(args.output)
    print(f"{args.output}: {len(pairs)} images")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
