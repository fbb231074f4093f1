"""Preparing image-level data of ImageNet-LVIS's shape: 997 tars of small JPEGs.

    python benchmarks/prepare.py [--images 100000] [--json OUT]

Cases, for which there is no baseline:
`prepare/first`: the JSON from the tars, whose headers are walked and indexed on the way. Memory is the sum
over the command's processes, looked at twenty times a second.
`prepare/resumed`: the same in two runs, the first ended by SIGKILL when half of the classes were finished.
Classes that were done twice are counted and must be none.
`prepare/read`: --reads images read and decoded in random order straight from the tars.
"""

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from benchmarks.protocol import MEMORY, TIME, Row, argument_parser, report, wanted
from datasets.annotations.discovery import IMAGE_LEVEL_JSON
from datasets.annotations.json_reader import read_annotations
from datasets.annotations.lvis_v1 import classes_by_wnid
from datasets.images.reader import ImageFolder

ROOT = Path(__file__).resolve().parents[1]
SIDE = 64


def main() -> None:
    parser = argument_parser(__doc__, device=None, threads=False)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--reads", type=int, default=20_000, help="images that are read back from the tars")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="where the tars are made (default: a temporary folder)")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="prepare-", dir=args.folder))
    try:
        started = time.perf_counter()
        size = write_tars(folder / "images", args.images)
        notes = {
            "images": args.images,
            "tars": len(classes_by_wnid()),
            "bytes": size,
            "workers": args.workers,
            "generated in seconds": round(time.perf_counter() - started, 1),
        }
        rows = measure(folder, args, notes)
    finally:
        shutil.rmtree(folder)
    report(rows, packages=("pillow", "numpy"), json_path=args.json, notes=notes)


def measure(folder: Path, args: argparse.Namespace, notes: dict) -> list[Row]:
    """The rows; facts of the run go to `notes`."""
    rows = []
    for case, run in (("prepare/resumed", resumed), ("prepare/first", uninterrupted)):
        if wanted(case, args.only):
            clean(folder)
            seconds, peak = run(folder, args.workers, notes)
            count = len(json.loads((folder / IMAGE_LEVEL_JSON).read_text())["images"])
            if count != args.images:
                raise RuntimeError(f"{case}: {count} images instead of {args.images}")
            notes[f"{case} images a second"] = round(args.images / seconds)
            rows.append(Row(case, "none", TIME, seconds, None))
            if peak:
                rows.append(Row(case, "none", MEMORY, peak, None))
    if wanted("prepare/read", args.only):
        if not (folder / IMAGE_LEVEL_JSON).is_file():
            uninterrupted(folder, args.workers, notes)
        rows.append(Row("prepare/read", "none", TIME, read_back(folder, args.reads, notes), None))
    return rows


def write_tars(folder: Path, images: int) -> int:
    """A tar for each of the 997 classes, with numbered JPEGs of noise; returns their bytes."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(64):
        file = io.BytesIO()
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE)).save(file, "JPEG")
        jpegs.append(file.getvalue())
    wnids = sorted(classes_by_wnid())
    for number, wnid in enumerate(wnids):
        with tarfile.open(folder / f"{wnid}.tar", "w") as tar:
            for i in range(number, images, len(wnids)):
                entry = tarfile.TarInfo(f"{wnid}_{i}.JPEG")
                data = jpegs[i % len(jpegs)]
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return sum(path.stat().st_size for path in folder.iterdir())


def clean(folder: Path) -> None:
    """As before the first run: no JSON, no indices of the tars."""
    for path in [*folder.glob("*.json"), *folder.glob("*.txt"), *(folder / "images").glob("*.index")]:
        path.unlink()


def start(folder: Path, workers: int) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "tools/create_imagenet_lvis.py"), str(folder / "images")]
    command += ["--workers", str(workers)]
    # A session of its own: a kill reaches its workers too, as when the machine goes down.
    return subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)


def watched(process: subprocess.Popen) -> int:
    """Waits for the end; returns the most memory that the process and its workers held together, in bytes."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(resident(pid) for pid in (process.pid, *children(process.pid))))
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"create_imagenet_lvis.py ended with {process.returncode}")
    return peak


def children(pid: int) -> list[int]:
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def resident(pid: int) -> int:
    """Bytes of memory; what several processes share counts in each."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # it has just ended
        return 0


def uninterrupted(folder: Path, workers: int, notes: dict) -> tuple[float, int]:
    """Seconds and bytes of one run from nothing."""
    started = time.perf_counter()
    peak = watched(start(folder, workers))
    return time.perf_counter() - started, peak


def resumed(folder: Path, workers: int, notes: dict) -> tuple[float, int]:
    """Seconds of both runs together; memory is not looked at (0)."""
    parts = folder / f".{IMAGE_LEVEL_JSON}.parts"
    half = len(classes_by_wnid()) // 2
    started = time.perf_counter()
    first = start(folder, workers)
    while len(list(parts.glob("n*.json"))) < half:
        if first.poll() is not None:
            raise RuntimeError("it was finished before it could be killed: use more --images")
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("n*.json")}
    second = start(folder, workers)
    again = 0
    while second.poll() is None and parts.is_dir():
        try:
            again = sum((parts / name).stat().st_mtime_ns != changed for name, changed in kept.items())
        except FileNotFoundError:  # they are removed when all is done
            break
        time.sleep(0.05)
    watched(second)
    printed = second.stdout.read().decode()
    notes["finished when killed"] = len(kept)
    notes["finished classes done again"] = again
    notes["the second run says"] = printed.splitlines()[0]
    if again or not printed.startswith(f"{len(kept)} of"):
        raise RuntimeError(f"{again} finished classes were done again; it said: {printed.splitlines()[0]}")
    return time.perf_counter() - started, 0


def read_back(folder: Path, reads: int, notes: dict) -> float:
    """Seconds of reading that many images in random order from the tars, as training does."""
    annotations = read_annotations(folder / IMAGE_LEVEL_JSON)
    images = ImageFolder(folder / "images")
    order = np.random.default_rng(0).permutation(len(annotations))[:reads]
    started = time.perf_counter()
    images.open_archives()
    notes["opening the tars, seconds"] = round(time.perf_counter() - started, 3)
    started = time.perf_counter()
    for i in order.tolist():
        if images.read(annotations.file_names[i]).shape[:2] != (SIDE, SIDE):
            raise RuntimeError(f"{annotations.file_names[i]} is not what was written")
    seconds = time.perf_counter() - started
    notes["prepare/read images a second"] = round(len(order) / seconds)
    return seconds


if __name__ == "__main__":
    main()
