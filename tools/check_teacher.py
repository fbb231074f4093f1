"""Measures a teacher: which share of the annotated boxes, and of the image-level images, it names right.

python tools/check_teacher.py -c CONFIG --data_path DATA [--options clip_model=JSON clip_pretrained=FILE]

A box is named right where the text of its class is the nearest to what the teacher sees in it (top 1), or
among the five nearest (top 5). Images have the size of evaluation. The classes are told apart by frequency,
the boxes by size (COCO's: small below 32 x 32 pixels of the file, large from 96 x 96), and, with an
image-level stream, the classes by whether it has images of them.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config import Config, load, parse_options
from datasets.build import RunSettings, build_datasets
from datasets.run_data import DataParts
from models.richsem.build import configured_clip, encode_vocabulary
from models.richsem.naming import own_class_ranks
from models.richsem.teacher import Teacher
from util import distributed
from util.errors import UserError, run_command
from util.files import atomic_write
from util.structures import Batch

SMALL, LARGE = 32**2, 96**2
GROUPS = {"r": "rare", "c": "common", "f": "frequent"}
TOP = (1, 5)


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-c", "--config_file", type=Path, required=True, help="config of the training run")
    parser.add_argument("--options", nargs="+", default=[], help="config keys, as for main.py")
    parser.add_argument("--data_path", nargs="+", required=True, help="as for main.py")
    parser.add_argument("--dataset_file", default="lvis", help="lvis (default) or coco")
    parser.add_argument("--images", type=int, default=500, help="image-level images to measure on, at most")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--json", type=Path, help="also write the table as JSON")
    args = parser.parse_args(words)
    if args.images < 0:
        parser.error(f"argument --images: {args.images} is below 0")
    return args


class Ranks:
    """Columns over boxes: rank of the own class (0 = named right), class, and area in pixels of the file."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []

    def add(self, ranks: torch.Tensor, batch: Batch) -> None:
        """ranks: (N,), of the boxes of the batch."""
        targets = batch[1]
        sizes = torch.tensor([h * w for h, w in targets.original_sizes], dtype=torch.float64)
        areas = targets.boxes_cxcywh[:, 2:].double().prod(1) * sizes[targets.image_index]
        columns = ranks.double().cpu(), targets.labels.double(), areas
        self._rows.append(torch.stack(columns, 1).numpy())

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """rank (N,) int64, class (N,) int64, area (N,) float64."""
        rows = np.concatenate(self._rows) if self._rows else np.zeros((0, 3))
        return rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64), rows[:, 2]


def table(boxes: Ranks, images: Ranks, data: DataParts) -> list[dict[str, Any]]:
    """Rows of `of`, `group`, `count`, `top1` and `top5` (shares, None for nothing)."""
    rank, label, area = boxes.columns()
    frequency = np.array(data.classes.frequencies)[label] if len(label) else np.zeros(0, dtype=str)
    groups: list[tuple[str, np.ndarray]] = [("all", np.ones(len(rank), dtype=bool))]
    groups += [(name, frequency == key) for key, name in GROUPS.items()]
    groups += [
        ("small", area < SMALL),
        ("medium", (area >= SMALL) & (area < LARGE)),
        ("large", area >= LARGE),
    ]
    if data.labelled is not None:
        counts = data.labelled.source.images_of_class(data.classes.names)
        seen = np.array([counts[name] > 0 for name in data.classes.names])[label]
        groups += [("with image-level images", seen), ("without", ~seen)]
    rows = [_row("boxes", name, rank[chosen]) for name, chosen in groups]
    return rows + [_row("image-level images", "all", images.columns()[0])] * (data.labelled is not None)


def _row(of: str, group: str, rank: np.ndarray) -> dict[str, Any]:
    shares = {f"top{k}": float((rank < k).mean()) if len(rank) else None for k in TOP}
    return {"of": of, "group": group, "count": len(rank), **shares}


def text_of(rows: Sequence[dict[str, Any]]) -> str:
    """The table for people."""
    lines = [f"{'':46}{'count':>8}" + "".join(f"{f'top {k}':>8}" for k in TOP)]
    for row in rows:
        shares = "".join(
            f"{'-' if row[f'top{k}'] is None else format(100 * row[f'top{k}'], '.1f'):>8}" for k in TOP
        )
        lines.append(f"{row['of'] + ', ' + row['group']:46}{row['count']:8}{shares}")
    return "\n".join(lines)


def measure(
    config: Config, data: DataParts, most_images: int, device: torch.device, report: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The rows of `table` for the validation boxes and the image-level images."""
    clip = configured_clip(config)
    text = encode_vocabulary(clip, data.classes.names, config.text_cache_dir).to(device)
    visual: Any = clip.model.visual
    teacher = Teacher(visual).to(device)
    boxes, images = Ranks(), Ranks()
    for batch in data.val_loader:
        boxes.add(own_class_ranks(teacher, text, batch[0].to(device), batch[1].to(device)), batch)
    if data.labelled is not None:
        for batch in data.labelled.batches(most_images):
            images.add(own_class_ranks(teacher, text, batch[0].to(device), batch[1].to(device)), batch)
    rows = table(boxes, images, data)
    report(text_of(rows))
    return rows


def main(words: list[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse_arguments(words)
    config = load(args.config_file, parse_options(args.options))
    device = distributed.setup(args.device, None)
    path = args.data_path[0] if len(args.data_path) == 1 else args.data_path
    data = build_datasets(config, RunSettings(path, dataset_file=args.dataset_file))
    rows = measure(config, data, args.images, device, print)
    if not rows[0]["count"]:
        raise UserError(f"{data.val_annotations.name}: has no boxes to measure on")
    if args.json:
        with atomic_write(args.json) as file:
            pair = {"clip_model": config.clip_model, "clip_pretrained": config.clip_pretrained}
            file.write(
                json.dumps({**pair, "classes": len(data.classes.names), "rows": rows}, indent=1) + "\n"
            )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
