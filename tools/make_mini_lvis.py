"""Draws a small long-tailed dataset in LVIS v1's format, and image-level images in Detic's.

python tools/make_mini_lvis.py --output DATA

makes DATA/lvis_v1 and DATA/imagenet-lvis: what `--data_path DATA` expects. The same seed gives the same
bytes.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.mini_lvis.dataset import TAIL_SETTINGS, Settings, write_dataset
from util.errors import UserError, run_command


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    default, tail = Settings(), TAIL_SETTINGS
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to make, or an empty one")
    parser.add_argument(
        "--tail",
        action="store_true",
        help="64 classes, 20 of them rare, and ten image-level images for every boxed one; otherwise 40 "
        "classes, 10 of them rare",
    )
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--train", type=int, help=f"training images ({default.train}; tail: {tail.train})")
    parser.add_argument("--val", type=int, help=f"validation images ({default.val}; tail: {tail.val})")
    parser.add_argument(
        "--image_level",
        type=int,
        help=f"image-level images per class, on average ({default.image_level}; tail: {tail.image_level})",
    )
    parser.add_argument("--side", type=int, default=default.side, help="width and height of boxed images")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")
    return parser.parse_args(arguments)


@contextmanager
def drawing_pool(workers: int) -> Iterator[Callable]:
    """A `map` over `workers` processes. Images do not depend on one another, so the bytes stay the same."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield partial(pool.map, chunksize=25)


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    preset = TAIL_SETTINGS if args.tail else Settings()
    asked = {
        name: value for name in ("train", "val", "image_level") if (value := getattr(args, name)) is not None
    }
    for name, value in {**asked, "workers": args.workers}.items():
        if value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}.")
    if args.seed < 0:
        raise UserError(f"--seed must not be negative, not {args.seed}.")
    if args.side < 64:
        raise UserError(f"--side must be at least 64 pixels, not {args.side}.")
    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        raise UserError(f"{args.output} is not an empty folder. Remove it or name another.")
    start = time.perf_counter()
    settings = replace(preset, seed=args.seed, side=args.side, **asked)
    # Drawn beside its place: a folder of that name is whole, however the drawing was interrupted.
    output = args.output.resolve()
    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with drawing_pool(args.workers) as parallel_map:
        counts = write_dataset(partial, settings, parallel_map)
    partial.replace(output)
    for name, count in counts.items():
        print(f"{name}: {count}")
    print(f"{args.output}: drawn in {time.perf_counter() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
