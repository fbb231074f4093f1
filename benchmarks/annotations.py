"""Annotation files: how long until they can be used, and what memory they take.

    python benchmarks/annotations.py [--json OUT]

Ours is `open_annotations`; the other side is the `lvis` package and a list of dicts made from it, as is
common in detectors. Each runs in a process of its own, on one generated file (1.2 GB, in a temporary folder).

    annotations/cold    nothing is kept yet: read, kept, mapped
    annotations/warm    a later start, and every column read once
    annotations/worker  how much a forked DataLoader worker's own memory (pages that no other process shares)
                        grows while it copies the annotations of every image once

Smaller files are read once, without cache or hashing. Ours is `read_annotations`; the other sides are
`json.load` and, where it is installed, hotcoco (on one thread). Their time is CPU seconds.

    annotations/4MB, annotations/16MB    without polygons
    annotations/90MB                     with polygons
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from torch.utils.data import DataLoader, Dataset

from benchmarks.lvis_files import TRAIN, write_lvis
from benchmarks.protocol import (
    MEMORY,
    ONLY_REPORTED,
    TIME,
    Measured,
    Row,
    argument_parser,
    in_own_process,
    private_bytes,
    report,
    wanted,
)
from datasets.annotations.cache import open_annotations
from datasets.annotations.json_reader import read_annotations
from datasets.annotations.table import AnnotationTable

BASELINE = "lvis+dicts"
CASES = ("annotations/cold", "annotations/warm", "annotations/worker")
# Boxes, and whether they have polygons. Images as in LVIS: a twelfth of the boxes.
SMALL_FILES = {
    "annotations/4MB": (24_500, False),
    "annotations/16MB": (105_000, False),
    "annotations/90MB": (98_500, True),
}
_IMAGES_PER_BATCH = 1000


def import_both() -> None:
    """So that no side pays for its imports."""
    import lvis
    import safetensors.torch

    assert lvis.LVIS and safetensors.torch


def load_lvis(path: Path) -> list[dict[str, Any]]:
    """A dict for each image, its boxes and polygons as dicts in it."""
    from lvis import LVIS

    api = LVIS(str(path))
    return [
        {
            "file_name": "/".join(image["coco_url"].split("/")[-2:]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "neg_category_ids": image["neg_category_ids"],
            "not_exhaustive_category_ids": image["not_exhaustive_category_ids"],
            "annotations": [
                {key: annotation[key] for key in ("bbox", "category_id", "area", "segmentation")}
                for annotation in api.img_ann_map[image["id"]]
            ],
        }
        for image in api.load_imgs(api.get_img_ids())
    ]


def count_dicts(path: Path) -> int:
    """Loads them and counts the boxes."""
    return sum(len(record["annotations"]) for record in load_lvis(path))


def open_store(path: Path) -> int:
    """Opens the columns and counts the boxes."""
    return len(open_annotations(path).areas)


def read_store(path: Path) -> int:
    """The same, and reads every column once."""
    store = open_annotations(path)
    columns = [c for c in vars(store).values() if isinstance(c, np.ndarray)]
    lists = (store.negatives, store.not_exhaustive, store.positives)
    columns += [store.file_names.data, *(c for ragged in lists for c in (ragged.values, ragged.offsets))]
    for column in columns:
        column.sum()
    return len(store.areas)


class DictImages(Dataset):
    """Copies an image's dict, as dataset code does before it changes something in it."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, image: int) -> int:
        return len(copy.deepcopy(self.records[image])["annotations"])


class StoreImages(Dataset):
    """Copies an image's rows."""

    def __init__(self, store: AnnotationTable) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, image: int) -> int:
        store, rows = self.store, self.store.rows(image)
        columns = (store.boxes_xywh, store.areas, store.category_index, store.annotation_ids, store.crowd)
        lists = (store.negatives, store.not_exhaustive, store.positives)
        copies = [column[rows].copy() for column in columns] + [ragged[image].copy() for ragged in lists]
        assert store.file_names[image] and store.size(image)
        return len(copies[0])


class Watched(Dataset):
    """Images in batches; an item is (boxes, own memory of the worker in bytes after it)."""

    def __init__(self, images: Dataset) -> None:
        self.images = images

    def __len__(self) -> int:
        return -(-len(self.images) // _IMAGES_PER_BATCH)

    def __getitem__(self, batch: int) -> tuple[int, int]:
        first = batch * _IMAGES_PER_BATCH
        last = min(first + _IMAGES_PER_BATCH, len(self.images))
        return sum(self.images[i] for i in range(first, last)), private_bytes()


class Growth(NamedTuple):
    """boxes: seen by the worker.  bytes: how much its own memory grew from its start to its most."""

    boxes: int
    bytes: int


class Idle(Dataset):
    """One item: the own memory of a worker that has done nothing yet."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> int:
        return private_bytes()


def read_ours(path: Path) -> int:
    """Reads the columns, without the cache."""
    return len(read_annotations(path).areas)


def read_json(path: Path) -> int:
    """Parses the whole file into dicts."""
    with path.open("rb") as file:
        return len(json.load(file)["annotations"])


def read_hotcoco(path: Path) -> int:
    """Reads the file with hotcoco."""
    import hotcoco

    return len(hotcoco.COCO(str(path)).get_ann_ids())


def import_readers() -> None:
    """So that no side pays for its imports; hotcoco starts its threads when it is imported."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    if importlib.util.find_spec("hotcoco"):
        importlib.import_module("hotcoco")


def worker_growth(path: Path, ours: bool) -> Growth:
    """Loads the annotations, forks one worker and lets it pass over all images."""
    images = StoreImages(open_annotations(path)) if ours else DictImages(load_lvis(path))
    loading = {"batch_size": None, "num_workers": 1, "multiprocessing_context": "fork"}
    before = next(iter(DataLoader(Idle(), **loading)))
    seen = list(DataLoader(Watched(images), **loading))
    return Growth(sum(boxes for boxes, _ in seen), max(memory for _, memory in seen) - before)


def clear(folder: Path) -> None:
    """Forgets what was kept."""
    for file in folder.glob("annotations/*"):
        file.unlink()


def measure_starts(path: Path, boxes: int, cases: list[str], repeats: int) -> list[Row]:
    """The rows of the cold and the warm start, whichever is wanted: medians, the sides in turns."""
    cache = Path(os.environ["RICHSEM_CACHE"])
    dicts, starts = [], {CASES[0]: [], CASES[1]: []}
    for _ in range(repeats):
        dicts.append(in_own_process(count_dicts, path, prepare=import_both))
        clear(cache)
        starts[CASES[0]].append(in_own_process(open_store, path, prepare=import_both))
        starts[CASES[1]].append(in_own_process(read_store, path, prepare=import_both))
    assert {m.value for m in (*dicts, *starts[CASES[0]], *starts[CASES[1]])} == {boxes}
    rows = []
    for case in starts:
        if case in cases:
            rows += [
                Row(case, BASELINE, TIME, _seconds(starts[case]), _seconds(dicts)),
                Row(case, BASELINE, MEMORY, _bytes(starts[case]), _bytes(dicts)),
            ]
    return rows


def measure_small(case: str, folder: Path, repeats: int) -> list[Row]:
    """The rows of one small file: medians, the sides in turns."""
    boxes, polygons = SMALL_FILES[case]
    path = folder / f"{case.rpartition('/')[2]}.json"
    write_lvis(path, boxes // 12, boxes, polygons=polygons)
    sides = {"ours": read_ours, "json": read_json}
    if importlib.util.find_spec("hotcoco"):
        sides["hotcoco"] = read_hotcoco
    runs: dict[str, list[Measured]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, read in sides.items():
            runs[name].append(in_own_process(read, path, prepare=import_readers))
    assert {m.value for measured in runs.values() for m in measured} == {boxes}
    path.unlink()
    ours = runs.pop("ours")
    rows = [Row(case, name, TIME, _cpu_seconds(ours), _cpu_seconds(theirs)) for name, theirs in runs.items()]
    return rows + [Row(case, name, MEMORY, _bytes(ours), _bytes(theirs)) for name, theirs in runs.items()]


def measure_worker(path: Path, boxes: int) -> Row:
    """The row of the worker."""
    ours, theirs = (in_own_process(worker_growth, path, side, prepare=import_both) for side in (True, False))
    assert ours.value.boxes == theirs.value.boxes == boxes
    return Row(CASES[2], BASELINE, MEMORY, ours.value.bytes, theirs.value.bytes)


def _seconds(measured: list[Measured]) -> float:
    return statistics.median(m.seconds for m in measured)


def _cpu_seconds(measured: list[Measured]) -> float:
    return statistics.median(m.cpu_seconds for m in measured)


def _bytes(measured: list[Measured]) -> float:
    return statistics.median(m.peak_bytes for m in measured)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Generates the file, measures, reports."""
    parser = argument_parser(__doc__, device=ONLY_REPORTED, threads=False)
    parser.add_argument("--images", type=int, default=TRAIN.images, help="default: LVIS train's")
    parser.add_argument("--boxes", type=int, default=TRAIN.boxes)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made; needs 1.5 GB")
    args = parser.parse_args(arguments)
    cases = [case for case in CASES if wanted(case, args.only)]
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        rows = []
        for case in SMALL_FILES:
            if wanted(case, args.only):
                rows += measure_small(case, Path(folder), args.repeats)
        path = Path(folder) / "lvis_v1_train.json"
        if cases:
            write_lvis(path, args.images, args.boxes)
        os.environ["RICHSEM_CACHE"] = str(Path(folder) / "cache")
        # What was written just now would be hashed at each start.
        time.sleep(3)
        if {*CASES[:2]} & {*cases}:
            rows += measure_starts(path, args.boxes, cases, args.repeats)
        if CASES[2] in cases:
            rows.append(measure_worker(path, args.boxes))
        size = path.stat().st_size if cases else 0
    notes = {"images": args.images, "boxes": args.boxes, "json_bytes": size, "repeats": args.repeats}
    packages = ("numpy", "msgspec", "lvis", "safetensors", "hotcoco")
    return report(rows, device=args.device, packages=packages, json_path=args.json, notes=notes)


if __name__ == "__main__":
    main()
