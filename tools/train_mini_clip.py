"""Trains a small CLIP on image-level images, as RichSem's teacher where OpenAI's weights are out of reach.

python tools/train_mini_clip.py --images DATA/imagenet-lvis --output DATA/mini_clip

writes mini_clip.json and mini_clip.safetensors: `clip_model` and `clip_pretrained` of a configuration.
Only the image-level images and the class names are used: no boxes, no validation images. With
--trunk NAME --trunk_weights FILE the image tower starts from a pretrained timm model.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.mini_clip.cone import add_common_component
from tools.mini_clip.evaluate import box_accuracy, class_texts, image_accuracy
from tools.mini_clip.images import load_tree
from tools.mini_clip.model import MiniClipSize, round_to_file, save
from tools.mini_clip.train import TrainSettings, train
from util.errors import UserError, run_command

BOX_SCALES = (1.0, 2.0, 3.0)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    default = TrainSettings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="image-level tree in Detic's format")
    parser.add_argument("--output", type=Path, required=True, help="folder of the two files")
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--held_out", type=float, default=0.1, help="share of images kept to measure on")
    parser.add_argument(
        "--boxes", type=Path, help="LVIS-format folder (lvis_v1): also measure on its validation boxes"
    )
    parser.add_argument(
        "--trunk", default="", help="timm model as the image tower, such as tf_efficientnet_lite0"
    )
    parser.add_argument(
        "--trunk_weights", type=Path, help="its pretrained weights, under timm's names or in timm's order"
    )
    parser.add_argument("--name", default="mini_clip", help="of the two files")
    return parser.parse_args(arguments)


def report_boxes(model: CLIP, lvis: Path, texts: torch.Tensor) -> None:
    """Top-1 of the regions as the teacher pools them from whole scenes, at several enlargements."""
    annotations = lvis / "annotations" / "lvis_v1_val.json"
    for scale in BOX_SCALES:
        result = box_accuracy(model, annotations, lvis, texts, scale)
        print(f"validation boxes, images x{scale:g}: " + "  ".join(f"{k} {v:.3f}" for k, v in result.items()))


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    if args.steps < 1:
        raise UserError(f"--steps must be at least 1, not {args.steps}.")
    if not 0 <= args.held_out < 1:
        raise UserError(f"--held_out must lie in 0..1, not {args.held_out}.")
    if args.trunk_weights and not args.trunk:
        raise UserError("--trunk_weights needs --trunk, timm's name of the model.")
    start = time.process_time()
    settings, size = TrainSettings(steps=args.steps, seed=args.seed), MiniClipSize(trunk=args.trunk)
    rng = np.random.default_rng(args.seed)
    tree = load_tree(args.images, round(settings.tile[1] * 1.3), args.held_out, rng)
    print(f"{len(tree.train)} images to train on, {len(tree.held_out)} held out, {len(tree.names)} names")
    model = train(tree, size, settings, torch.device(args.device), trunk_weights=args.trunk_weights)
    add_common_component(model)
    round_to_file(model)
    config, weights = save(model, size, args.output, args.name)
    texts = class_texts(model, tree.names)
    print(f"held-out images, top-1 of {len(tree.names)}: {image_accuracy(model, tree.held_out, texts):.3f}")
    if args.boxes:
        report_boxes(model, args.boxes, texts)
    seconds, megabytes = time.process_time() - start, weights.stat().st_size / 1e6
    print(f"{config}, {weights} ({megabytes:.1f} MB): {seconds:.0f} CPU seconds")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
