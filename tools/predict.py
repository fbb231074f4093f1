"""Runs a trained model on images and videos: draws the detections and writes them in several formats.

    python tools/predict.py CKPT INPUT... [--output DIR] [--score 0.3] [--format drawn,json,coco,yolo,csv]

An input is an image, a folder, a quoted glob, a list file (.txt, a path a line), a video, or a camera
(`camera:0`, until Ctrl-C). Writes DIR/NAME.drawn.jpg for every image, and DIR/predictions.json;
docs/predict.md has the other formats. A checkpoint of this project is all it needs; an official one has no
class names, so it needs `--annotations`, an LVIS file.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# Read when torch is imported: its idle threads leave their cores to the one that decodes, and to others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from tqdm import tqdm

from config.word_flags import add_word_flags, word_arguments
from datasets.images.preprocess import ImageError
from inference.export.info import ONNX, check_fixed, is_exported
from inference.image_ids import ImageIds
from inference.inputs import read_image
from inference.predictor import Predictor
from inference.prefetch import prefetched
from inference.sources import Source, find_sources
from inference.thresholds import parse_score
from inference.video import frame_count, read_video, require_video
from inference.writers import FORMATS, Item, Results, parse_formats
from util.errors import UserError, run_command
from util.hub import resolve

# Batches that are decoded while the network works.
_AHEAD = 2


@dataclass
class Count:
    """What became of the sources."""

    images: int = 0
    detections: int = 0
    unreadable: int = 0
    stopped: bool = False


def read_items(sources: Sequence[Source]) -> Iterator[Item | ImageError]:
    """Every image and frame; in place of a source that cannot be read, or of its rest, the reason."""
    for source in sources:
        try:
            if source.is_video:
                for frame in read_video(source.path):
                    yield Item(source, frame.pixels, frame.number, frame.seconds, frame.rate)
            else:
                yield Item(source, read_image(source.path)[0])
        except ImageError as error:
            yield error


def batches(items: Iterator[Item | ImageError], size: int, count: Count) -> Iterator[list[Item]]:
    """Readable images, `size` at a time; the others are named on standard error and counted."""

    def readable() -> Iterator[Item]:
        for item in items:
            if isinstance(item, ImageError):
                count.unreadable += 1
                tqdm.write(str(item), file=sys.stderr)
            else:
                yield item

    remaining = readable()
    while batch := list(islice(remaining, size)):
        yield batch


def predict(
    predictor: Predictor, sources: Sequence[Source], results: Results, *, batch_size: int, limit: int
) -> Count:
    """Adds the predictions of all sources to `results`. limit: detections an image. Ctrl-C ends it early."""
    count = Count()
    totals = [(0 if s.is_camera else frame_count(s.path)) if s.is_video else 1 for s in sources]
    items = prefetched(read_items(sources), _AHEAD * batch_size)
    total = sum(totals) if all(totals) else None
    with tqdm(
        total=total, desc="predict", unit="image", disable=None, leave=False, dynamic_ncols=True
    ) as bar:
        try:
            for batch in batches(items, batch_size, count):
                for item, found in zip(batch, predictor.detect([i.pixels for i in batch]), strict=True):
                    kept = found.select(np.arange(min(len(found), limit)))
                    results.add(item, kept)
                    count.images += 1
                    count.detections += len(kept)
                    bar.update()
        except KeyboardInterrupt:
            count.stopped = True
    return count


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="a checkpoint, or an exported .onnx file")
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="images, folders, globs, lists, videos, cameras"
    )
    parser.add_argument("--output", type=Path, default=Path("predictions"), help="folder to write to")
    parser.add_argument("--format", default="drawn,json", help=f"what to write: some of {','.join(FORMATS)}")
    parser.add_argument(
        "--score", default="0.3", help="lowest score that is kept: a number, or rare=0.2,others=0.3,NAME=0.5"
    )
    parser.add_argument(
        "--max_detections", type=int, default=100, metavar="N", help="the best N of an image are kept"
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=4,
        help="images of one size, or tiles, that the network sees at a time",
    )
    parser.add_argument(
        "--tile", type=int, metavar="PIXELS", help="see larger images in tiles of this side too"
    )
    parser.add_argument("--overlap", type=float, default=0.2, help="of tiles, as a part of their side")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", help="float32, bfloat16 or float16; default: the checkpoint's own")
    parser.add_argument(
        "--compile", action="store_true", help="compile encoder and decoder: for many images on a GPU"
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        help="LVIS or COCO file: ids for --format coco, and class names of an official checkpoint",
    )
    add_word_flags(parser)
    args = parser.parse_args(arguments)
    for name in ("batch_size", "max_detections"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    return args


def load(args: argparse.Namespace) -> Predictor:
    """The model that `args` names. Imported here: an ONNX file needs no torch."""
    score = parse_score(args.score)
    tile = (args.tile, args.overlap) if args.tile is not None else None
    if is_exported(args.checkpoint, ONNX):
        words = any(word_arguments(args).values())
        check_fixed(args.checkpoint, words=words, precision=args.precision, compiled=args.compile)
        from inference.onnx_model import OnnxModel

        return Predictor(OnnxModel(resolve(args.checkpoint), args.device), score, tile)
    from inference.load import load_predictor

    return load_predictor(
        args.checkpoint,
        device=args.device,
        precision=args.precision,
        compiled=args.compile,
        score=score,
        tile=tile,
        annotations=args.annotations,
        **word_arguments(args),
    )


def image_ids(annotations: Path, sources: Sequence[Source]) -> ImageIds | None:
    """The ids for COCO results; None where the file has none of the images, and so is there for its names."""
    ids = ImageIds.read(annotations)
    absent = [s.path for s in sources if s.is_video or ids.find(s.path) is None]
    if len(absent) == len(sources):
        print(f"{annotations}: has none of these images; coco_images.json has the ids", file=sys.stderr)
        return None
    if absent:
        print(
            f"{annotations}: coco_results.json leaves out {len(absent)} images that it does not have, "
            f"first: {absent[0]}",
            file=sys.stderr,
        )
    return ids


def main(arguments: list[str] | None = None) -> int:
    """Writes the results. Raises UserError if the checkpoint or every image is unreadable."""
    args = parse_arguments(arguments)
    formats = parse_formats(args.format)
    parse_score(args.score)
    sources = find_sources(args.inputs, args.output)
    for video in (s for s in sources if s.is_video):
        require_video(video.path)
    predictor = load(args)
    ids = image_ids(args.annotations, sources) if args.annotations and "coco" in formats else None
    started = time.perf_counter()
    with Results(args.output, formats, predictor.class_names, ids) as results:
        count = predict(predictor, sources, results, batch_size=args.batch_size, limit=args.max_detections)
        if not count.images and not count.stopped:
            raise UserError(f"none of the {len(sources)} images can be read.")
    rate = count.images / (time.perf_counter() - started)
    skipped = f", {count.unreadable} unreadable" if count.unreadable else ""
    print(
        f"{args.output}: {count.detections} detections in {count.images} images{skipped}, "
        f"{rate:.3g} images/s ({', '.join(formats)})"
    )
    if count.stopped:
        print("stopped by the user; what was predicted is written", file=sys.stderr)
    return 130 if count.stopped else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
