"""Runs a trained model on images: draws the detections and writes them as JSON.

python tools/predict.py CKPT IMAGE|FOLDER... [--output DIR] [--score 0.3]

Writes DIR/NAME.png for every image, and DIR/predictions.json. A checkpoint of this project is all it needs;
an official one has no class names, so it needs `--annotations`, an LVIS file.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image

from config import Config
from datasets.annotations.json_errors import load_json
from datasets.augment.policy import EvalPolicy
from datasets.images.class_sources import IMAGE_SUFFIXES, images_below
from datasets.images.reader import ImageError, ImageFolder
from datasets.sample import Sample, to_model_input
from engine.device import autocast, autocast_dtype
from models.richsem.load import TrainedModel, checkpoint_config, load_trained, open_checkpoint
from tools.drawing import LabelledBox, draw_boxes
from util import distributed
from util.errors import UserError, run_command
from util.structures import Detections, PaddedImages

_MIN_DRAWN_SIDE = 480


@dataclass(frozen=True)
class Detector:
    """A trained model with everything it needs to run on an image file."""

    trained: TrainedModel
    policy: EvalPolicy
    config: Config
    device: torch.device

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray) -> Detections:
        """(H, W, 3) uint8 RGB -> detections in its pixels, best first, on the CPU."""
        original = pixels.shape[:2]
        sample = Sample.from_arrays(pixels, torch.zeros(0, 4), torch.zeros(0))
        image, _ = to_model_input(self.policy(sample, None), 0, original)
        images = PaddedImages.from_list([image], self.config.pad_size_divisor).to(self.device).normalised()
        dtype = autocast_dtype(self.config.amp_dtype, self.device) if self.config.amp else None
        with autocast(self.device, dtype):
            output = self.trained.model(images)
        return self.trained.postprocess(output, [original])[0].to("cpu")


def load_detector(path: Path, device: torch.device, annotations: Path | None = None) -> Detector:
    """The model of a checkpoint, with the weights, precision and image size of its evaluation.

    annotations: an LVIS file with the class names of an official checkpoint; unused for ours.
    Raises UserError for a file that is not a checkpoint, and for an official one without `annotations`.
    """
    checkpoint = open_checkpoint(path)
    config = checkpoint_config(checkpoint)
    categories = None
    if annotations is not None:
        categories = {int(c["id"]): str(c["name"]) for c in load_json(annotations)["categories"]}
    trained = load_trained(checkpoint, config, categories, device)
    fixed = checkpoint.run.get("fix_size", False)
    policy = EvalPolicy(max(config.data_aug_scales), config.data_aug_max_size, fixed_size=fixed)
    return Detector(trained, policy, config, device)


def find_images(paths: Iterable[Path]) -> list[tuple[Path, Path]]:
    """(folder, name relative to it) of every image that is named, or inside a folder that is named.

    Raises UserError for a path that does not exist and for a folder without images.
    """
    found = []
    for path in paths:
        if path.is_file():
            found.append((path.parent, Path(path.name)))
        elif path.is_dir():
            inside = images_below(path)
            if not inside:
                raise UserError(f"{path}: contains no image ({', '.join(IMAGE_SUFFIXES)}).")
            found += [(path, Path(name)) for name in inside]
        else:
            raise UserError(f"{path}: no such image or folder.")
    return found


def labelled(
    detections: Detections, names: tuple[str, ...], min_score: float, max_dets: int
) -> list[LabelledBox]:
    """The best `max_dets` detections with a score of at least `min_score`."""
    columns = (detections.boxes_xyxy, detections.labels, detections.scores)
    rows = zip(*(column[:max_dets].tolist() for column in columns), strict=True)
    return [LabelledBox(tuple(box), names[label], score) for box, label, score in rows if score >= min_score]


def predict(
    detect: Callable[[np.ndarray], Detections],
    names: tuple[str, ...],
    images: Iterable[tuple[Path, Path]],
    output: Path,
    min_score: float,
    max_dets: int = 100,
) -> tuple[list[dict], list[str]]:
    """Draws the detections of every image, below `output`.

    Returns:
        The entries of the JSON, and an error message for every image that could not be read.
    """
    entries, damaged = [], []
    for folder, name in images:
        try:
            image = ImageFolder(folder).read(str(name))
        except ImageError as error:
            damaged.append(str(error))
            continue
        boxes = labelled(detect(image), names, min_score, max_dets)
        drawn = output / name.parent / f"{name.name}.png"
        drawn.parent.mkdir(parents=True, exist_ok=True)
        draw_boxes(Image.fromarray(image), boxes, min_side=_MIN_DRAWN_SIDE).save(drawn)
        entries.append(
            {
                "file": str(folder / name),
                "width": image.shape[1],
                "height": image.shape[0],
                "drawn": str(drawn),
                "detections": [
                    {"name": b.name, "score": b.score, "box_xyxy": [round(v, 2) for v in b.box_xyxy]}
                    for b in boxes
                ],
            }
        )
    return entries, damaged


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path, nargs="+", help="images, or folders of images")
    parser.add_argument("--output", type=Path, default=Path("predictions"), help="folder to write to")
    parser.add_argument("--score", type=float, default=0.3, help="lowest score that is kept")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--annotations", type=Path, help="LVIS file with the class names of an official checkpoint"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Writes drawings and JSON. Raises UserError if the checkpoint or every image is unreadable."""
    args = parse_arguments(arguments)
    if not 0 <= args.score <= 1:
        raise UserError(f"--score must be between 0 and 1, not {args.score}.")
    images = find_images(args.images)
    detector = load_detector(args.checkpoint, distributed.setup(args.device), args.annotations)
    entries, damaged = predict(detector, detector.trained.class_names, images, args.output, args.score)
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
