"""Makes imagenet_lvis_image_info.json from ImageNet's images of LVIS classes.

    python tools/create_imagenet_lvis.py DATA/imagenet-lvis/images

IMAGES is a folder with a folder or a tar per class, named by WordNet id (n02682922, n02682922.tar) or by
class name; or one tar that holds such folders. Nothing is unpacked: training reads from the tars. Sizes are
read from the headers; --verify decodes every image.

Finished classes are kept in a hidden folder beside the JSON until all are done: after an interruption run the
same command again, and it continues with the others. Missing and damaged images are skipped and named in
imagenet_lvis_image_info_report.txt. The result does not depend on the number of processes.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from datasets.annotations.categories import Category
from datasets.annotations.category_matching import match_categories
from datasets.annotations.class_folders import category_of_folder
from datasets.annotations.discovery import IMAGE_LEVEL_JSON
from datasets.annotations.json_schema import read_categories
from datasets.annotations.json_stream import write_entries
from datasets.annotations.lvis_v1 import lvis_v1_classes
from datasets.images.class_sources import ClassSource, class_root, find_class_sources
from tools.imagenet_lvis.coverage import Coverage
from tools.imagenet_lvis.scan import Task, finished_part, read_part, scan_all
from util.errors import UserError, run_command
from util.files import atomic_write
from util.logging import setup_logging


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder of class folders or tars, or one tar")
    parser.add_argument("--output", type=Path, help=f"default: {IMAGE_LEVEL_JSON} at its place")
    parser.add_argument(
        "--annotations", type=Path, help="LVIS file with the classes (default: LVIS v1's, which are known)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--verify", action="store_true", help="decode every image, to find any damage")
    args = parser.parse_args(arguments)
    if args.workers < 1:
        parser.error("--workers must be at least 1")
    return args


def categories_of(path: Path | None) -> list[dict[str, Any]]:
    """The `categories` of a file, in order of id; LVIS v1's without one."""
    if path is None:
        return [c.to_json() for c in lvis_v1_classes()]
    return sorted(read_categories(path), key=lambda c: c["id"])


def find_root(images: Path) -> Path:
    """Where the classes lie: a folder, or one tar. Raises UserError where nothing holds a class."""
    if not images.exists():
        raise UserError(f"{images}: no such folder or tar")
    if (root := class_root(images)) is None:
        raise UserError(f"{images}: neither a folder of class folders or tars, nor a tar of class folders")
    return root.resolve()


def default_output(root: Path) -> Path:
    """Where training looks for the JSON: beside `images` or `images.tar`, else in the folder itself."""
    return (root if root.is_dir() and root.name != "images" else root.parent) / IMAGE_LEVEL_JSON


def how_to_train(root: Path, output: Path) -> str:
    """What to set, or what to move first."""
    home = output.resolve().parent
    if root in (home / "images", home / "images.tar", home) and output.name == IMAGE_LEVEL_JSON:
        return f"train with: --options imagenet_path={home}"
    place = home / f"images{root.suffix if root.is_file() else ''}"
    return f"to train, link or move: {root} -> {place}, {output.name} -> {home / IMAGE_LEVEL_JSON}"


def run(tasks: Sequence[Task], workers: int) -> None:
    """Scans those that are not finished, with a progress bar."""
    waiting = [task for task in tasks if read_part(task) is None]
    if len(waiting) < len(tasks):
        print(f"{len(tasks) - len(waiting)} of {len(tasks)} classes were finished before")
    images = failures = 0
    with tqdm(total=len(tasks), initial=len(tasks) - len(waiting), unit="class", disable=None) as bar:
        for found, failed in scan_all(waiting, workers):
            images, failures = images + found, failures + failed
            bar.set_postfix(images=images, failures=failures, refresh=False)
            bar.update()


def make_tasks(
    sources: Sequence[ClassSource], target_of: Mapping[int, int], output: Path, verify: bool
) -> list[tuple[int, Task]]:
    """(category id, task), in the order of the images: by category id, then by name of the source."""
    # Hidden: the JSON may lie among class folders.
    parts = output.with_name(f".{output.name}.parts")
    ordered = sorted((category, i) for i, category in target_of.items())
    return [(c, Task(sources[i], parts / f"{sources[i].name}.json", verify)) for c, i in ordered]


def entries(
    categories: Sequence[Mapping[str, Any]], tasks: Sequence[tuple[int, Task]], counts: Mapping[int, int]
) -> Iterator[tuple[str, str, bool]]:
    """The JSON that Detic writes and RichSem reads, as `write_entries` takes it; its `annotations` are empty.

    categories: LVIS's own; their `image_count` becomes that of `counts` (category id -> images), 0 for none.
    tasks: (category id, finished task), in the order of the images, whose ids are 1, 2, ...
    """
    for category in categories:
        yield "categories", json.dumps({**category, "image_count": counts.get(category["id"], 0)}), True
    images = ((category, image) for category, task in tasks for image in finished_part(task).images)
    for number, (category_id, image) in enumerate(images, start=1):
        entry = {"id": number, "file_name": image.name, "pos_category_ids": [category_id]}
        yield "images", json.dumps(entry | {"width": image.width, "height": image.height}), True
    yield "annotations", "[]", False


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    setup_logging()
    started = time.perf_counter()
    raw = categories_of(args.annotations)
    categories = [Category.from_json(c) for c in raw]
    root = find_root(args.images)
    sources = find_class_sources(root)
    output = args.output or default_output(root)
    matches = match_categories([category_of_folder(i, c.name) for i, c in enumerate(sources)], categories)
    if not matches.target_of:
        raise UserError(f"{root}: none of its {len(sources)} folders or tars matches a class")
    tasks = make_tasks(sources, matches.target_of, output, args.verify)
    run([task for _, task in tasks], args.workers)
    counts: Counter[int] = Counter()
    failures, empty = [], []
    for category, task in tasks:
        part = finished_part(task)
        counts[category] += len(part.images)
        failures += part.failures
        if not part.images and not part.failures:
            empty.append(task.source.name)
    coverage = Coverage(categories, counts, failures, sources, matches, empty)
    report = output.with_name(f"{output.stem}_report.txt")
    coverage.write_report(report)
    print("\n".join(coverage.summary()))
    kept = tasks[0][1].part.parent
    if not counts.total():
        # Overwriting images does not change their folder, so the kept parts would hide it.
        shutil.rmtree(kept)
        raise UserError(f"{root}: no image in its {len(tasks)} classes can be used; see {report}")
    with atomic_write(output) as file:
        write_entries(file, entries(raw, tasks, counts))
    shutil.rmtree(kept)
    print(f"{output}\n{report}\n{how_to_train(root, output)}\n{time.perf_counter() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
