"""What judged classes are worth where every image is labelled for half of the classes only.

    python benchmarks/partial_labels.py --data DATA --output DIR [--seeds 1 2] [--epochs 8] [--json OUT]

DATA: what `tools/make_mini_lvis.py` drew. Its training images become two sets with half of the classes each,
every second one by the number of images: set A has the even images with boxes of one half, set B the odd ones
with those of the other. Three trainings a seed, alike in all but this:

    judged    both sets as one, `judged_classes=True`: an image teaches the absence of its own half alone.
    plain     both sets as one, `judged_classes=False`: what has no box is taught to be absent.
    full      the data as drawn, every box of every class: the bound, with twice the boxes.

All are evaluated on the whole validation set. `closed` is the share of the gap between plain and full that
judged closes. AP ranks the detections of one class, so it does not see what lowers the scores of all of them:
recall and precision from a fixed score on do. The image-level stream is off, for its labels would tell of the
other half. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.protocol import machine, versions
from datasets.annotations.json_reader import read_annotations
from datasets.evaluation.judged import Judged, judge
from datasets.evaluation.predictions import PREDICTIONS_FILE, read_predictions
from util.errors import run_command

ROOT = Path(__file__).resolve().parents[1]
# A score from which on a user takes a detection for true; IoU 0.5.
SCORE = 0.3
AT_SCORE = (f"recall@{SCORE}", f"precision@{SCORE}", f"F1@{SCORE}")
METRICS = ("AP", "AP50", "APr", "APc", "APf", *AT_SCORE)
VARIANTS = ("judged", "plain", "full")
_CONFIG = "config/quickstart/richsem_mini.py"
_CLIP = "config/quickstart/mini_clip"


def half_of_class(categories: list[dict[str, Any]]) -> dict[int, int]:
    """Category id -> 0 or 1: the classes by their number of images, in turn."""
    ordered = sorted(categories, key=lambda c: (-c["image_count"], c["id"]))
    return {c["id"]: number % 2 for number, c in enumerate(ordered)}


def half_labelled(content: dict[str, Any], half: int, halves: dict[int, int]) -> dict[str, Any]:
    """Every second image, with the boxes of one half of the classes; COCO's form, so exhaustive in these."""
    images = [image for number, image in enumerate(content["images"]) if number % 2 == half]
    kept = {image["id"] for image in images}
    keys = ("id", "image_id", "category_id", "bbox", "area")
    return {
        "images": [
            {
                "id": image["id"],
                "file_name": "/".join(image["coco_url"].split("/")[-2:]),
                "height": image["height"],
                "width": image["width"],
            }
            for image in images
        ],
        "annotations": [
            {key: box[key] for key in keys}
            for box in content["annotations"]
            if box["image_id"] in kept and halves[box["category_id"]] == half
        ],
        "categories": [
            {key: c[key] for key in ("id", "name", "synset", "synonyms")}
            for c in content["categories"]
            if halves[c["id"]] == half
        ],
    }


def write_halves(data: Path, output: Path) -> list[Path]:
    """The two sets, whose images stay where they are."""
    source = data / "lvis_v1"
    train = json.loads((source / "annotations/lvis_v1_train.json").read_text())
    halves = half_of_class(train["categories"])
    folders = []
    for half, name in enumerate("AB"):
        folder = output / name
        (folder / "annotations").mkdir(parents=True, exist_ok=True)
        for split in ("train", "val"):
            content = json.loads((source / f"annotations/lvis_v1_{split}.json").read_text())
            path = folder / "annotations" / f"instances_{split}.json"
            path.write_text(json.dumps(half_labelled(content, half, halves)))
            link = folder / f"{split}2017"
            if not link.exists():
                link.symlink_to((source / f"{split}2017").resolve())
        folders.append(folder)
    return folders


def run(words: list[str]) -> None:
    """main.py with these words. Raises CalledProcessError where it fails."""
    subprocess.run([sys.executable, "main.py", *words, "--num_workers", "0"], cwd=ROOT, check=True)


def train_and_evaluate(
    variant: str, data: list[Path], whole: Path, folder: Path, seed: int, epochs: int
) -> dict[str, float]:
    """The metrics of one training on the whole validation set, 0..1."""
    options = [
        *(f"epochs={epochs}", f"eval_interval={epochs}", "use_imagenet=False"),
        f"judged_classes={variant == 'judged'}",
        *(f"clip_model={_CLIP}.json", f"clip_pretrained={_CLIP}.safetensors"),
    ]
    train = ["--resume", "auto", "-c", _CONFIG, "--seed", str(seed), "--options", *options]
    run([*train, "--data_path", *_words(*data), "--output_dir", *_words(folder)])
    evaluation = folder / "whole"
    evaluate = ["--eval", "--resume", *_words(folder / "checkpoint.pth")]
    run([*evaluate, "--data_path", *_words(whole), "--output_dir", *_words(evaluation)])
    annotations = read_annotations(whole / "lvis_v1/annotations/lvis_v1_val.json")
    result, judged = judge(annotations, read_predictions(evaluation / "eval" / PREDICTIONS_FILE))
    return {**result.metrics, **at_score(judged)}


def at_score(judged: Judged) -> dict[str, float]:
    """AT_SCORE over all boxes of all classes, 0..1."""
    right = np.zeros(len(judged.scores), bool)
    right[judged.hits] = judged.true(0)
    taken = judged.scores >= SCORE
    found, false = (np.count_nonzero(part & taken) for part in (right, judged.false(0)))
    boxes = int(judged.num_boxes.sum())
    values = found / max(boxes, 1), found / max(found + false, 1), 2 * found / max(boxes + found + false, 1)
    return dict(zip(AT_SCORE, map(float, values), strict=True))


def _words(*paths: Path) -> list[str]:
    return [str(path.resolve()) for path in paths]


def summary(found: dict[str, list[dict[str, float]]]) -> str:
    """A Markdown table: means in points, with every seed's value, and the share of the gap that is closed."""
    lines = ["| metric | plain | judged | full | closed |", "| --- | --- | --- | --- | ---: |"]
    for metric in METRICS:
        values = {variant: [100 * m[metric] for m in found[variant]] for variant in VARIANTS}
        mean = {variant: statistics.mean(v) for variant, v in values.items()}
        gap = mean["full"] - mean["plain"]
        closed = f"{(mean['judged'] - mean['plain']) / gap:.0%}" if gap > 0 else ""
        cells = [
            f"{mean[v]:.1f} ({', '.join(f'{x:.1f}' for x in values[v])})" for v in ("plain", "judged", "full")
        ]
        lines.append(f"| {metric} | {' | '.join(cells)} | {closed} |")
    return "\n".join(lines)


def main() -> int:
    """See the top."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that tools/make_mini_lvis.py made")
    parser.add_argument("--output", type=Path, required=True, help="folder of the sets and the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", choices=VARIANTS, nargs="+", default=VARIANTS, help="trainings to run")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write all numbers to this file")
    args = parser.parse_args()
    halves = write_halves(args.data, args.output)
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for seed in args.seeds:
        for variant in args.only:
            data = [args.data] if variant == "full" else halves
            folder = args.output / f"{variant}_{seed}"
            metrics = train_and_evaluate(variant, data, args.data, folder, seed, args.epochs)
            found[variant].append(metrics)
            print(
                f"seed {seed}, {variant}: " + ", ".join(f"{m} {100 * metrics[m]:.1f}" for m in METRICS),
                flush=True,
            )
    if set(args.only) != set(VARIANTS):
        return 0
    print(summary(found))
    if args.json:
        content = {"machine": machine(), "versions": versions(), "seeds": args.seeds, "metrics": found}
        args.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
