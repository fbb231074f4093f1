"""Images per second of prediction: from JPEG files to drawings and JSON, and where the time goes.

    python benchmarks/inference.py [--device cpu|cuda] [--checkpoint runs/quickstart/run/checkpoint.pth]

The first cases predict the same generated 480x640 JPEGs on the CPU. The baseline is what tools/predict.py did
at revision 124b857: one image at a time, the network as it was trained, a PNG for each drawing. Ours is what
the command does now with `--precision float32`. They take turns; a row's time is that of one image. Before
they are timed, their detections are compared: the notes have the largest differences.

    inference/quickstart   the checkpoint, at its own size (short side 160); skipped where it is absent
    inference/r50/480      a ResNet-50 RichSem with 1,203 classes and random weights, at 480x640
    .../network            the network alone, images in memory, one at a time on both sides; CPU seconds of
                           all threads, which depend less on what else the machine does
    .../network/batch      ours with `--batch` images at a time, against one at a time

Each also notes the milliseconds of its stages, one image at a time. The last cases detect in one generated
batch of 2 images, as evaluation does: pixels to the device, network, the best 300 boxes back. Each side is a
process of its own, as in benchmarks/train_step.py, whose baselines these are: `previous` (revision 18081fd)
and `transformers` (its Deformable DETR). Memory is what the first batch held above what was there before.

    inference/480x640/cpu/fp32   all sides in float32
    inference/800x1333/cuda      ours as it chooses; the others in bfloat16, `previous` with channels last
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks.images import jpeg
from benchmarks.protocol import TIME, Row, argument_parser, interleaved, report, wanted
from benchmarks.sides import ROOT, previous_tree, with_options
from benchmarks.train_step import FLOAT32, OURS, Case, has_transformers, measure
from benchmarks.whole_step.spec import Spec
from config import load
from datasets.sample import Sample, to_model_input
from inference.inputs import read_image
from inference.load import load_predictor
from inference.prediction import Prediction, make_prediction
from inference.predictor import Predictor
from inference.sources import find_sources
from inference.torch_model import TorchModel
from inference.writers import Results
from models.richsem.build import build_richsem, timm_backbone
from models.richsem.classifier import TextEmbeddings
from tools.predict import predict
from util.checkpoint import Checkpoint, save_checkpoint
from util.errors import UserError, run_command
from util.structures import PaddedImages

SIZE = (480, 640)
CPU_CASE, CUDA_CASE = "inference/480x640/cpu/fp32", "inference/800x1333/cuda"
SCORE, LIMIT = 0.3, 100
STAGES = ("backbone", "neck", "encoder", "query_selection", "decoder", "head")
CLASSES = 1203


def random_r50(path: Path, short: int, longest: int) -> Path:
    """A checkpoint of the paper's model with random weights and text embeddings."""
    torch.manual_seed(0)
    sizes = {"data_aug_scales": [short], "data_aug_max_size": longest}
    config = load("config/RichSem/richsem_4scale.py", sizes)
    text = TextEmbeddings(torch.randn(CLASSES, 1024), 4.6)
    model = build_richsem(config, text, timm_backbone(config, load=False))
    names = [f"class {i}" for i in range(CLASSES)]
    save_checkpoint(path, Checkpoint(model=model.state_dict(), class_names=names, config=config.to_dict()))
    return path


@torch.inference_mode()
def detect_before(model: TorchModel, pixels: np.ndarray) -> Prediction:
    """One image, as 124b857 did it: the trained network, contiguous, batch norms apart."""
    height, width = pixels.shape[:2]
    sample = Sample.from_arrays(pixels, torch.zeros(0, 4), torch.zeros(0))
    image = to_model_input(model.policy(sample, np.random.default_rng(0)), 0, (height, width))[0]
    padded = PaddedImages.from_list([image], model.config.pad_size_divisor)
    output = model.trained.model(padded.normalised())
    found = model.trained.postprocess(output, [(height, width)])[0]
    return make_prediction(
        model.class_names,
        found.scores.numpy(),
        found.labels.numpy(),
        found.boxes_xyxy.numpy(),
        (height, width),
    )


def predict_before(model: TorchModel, files: Sequence[Path], output: Path) -> None:
    """The command's loop at 124b857."""
    entries = []
    output.mkdir(parents=True, exist_ok=True)
    for path in files:
        pixels = read_image(path)[0]
        found = detect_before(model, pixels)
        kept = found.select(np.flatnonzero(found.scores >= SCORE)[:LIMIT])
        drawn = output / f"{path.name}.png"
        kept.draw(pixels).save(drawn)
        boxes = zip(kept.names, kept.scores.tolist(), kept.boxes_xyxy.tolist(), strict=True)
        detections = [{"name": n, "score": s, "box_xyxy": b} for n, s, b in boxes]
        entries.append({"file": str(path), "drawn": str(drawn), "detections": detections})
    (output / "predictions.json").write_text(json.dumps(entries))


def predict_now(predictor: Predictor, files: Sequence[Path], output: Path, batch: int) -> None:
    """What tools/predict.py runs."""
    sources = find_sources([str(path) for path in files], output)
    with Results(output, ("drawn", "json"), predictor.class_names) as results:
        predict(predictor, sources, results, batch_size=batch, limit=LIMIT)


def differences(model: TorchModel, images: Sequence[np.ndarray]) -> str:
    """Between both networks' detections; each of the one is paired with the nearest box of its class."""
    scores, boxes, alone, total = 0.0, 0.0, 0, 0
    for pixels in images:
        before, now = detect_before(model, pixels), model.detect([pixels])[0]
        total += len(before)
        for label, score, box in zip(before.labels, before.scores, before.boxes_xyxy, strict=True):
            rows = np.flatnonzero(now.labels == label)
            distances = np.abs(now.boxes_xyxy[rows] - box).max(1) if len(rows) else np.array([np.inf])
            nearest = int(distances.argmin())
            if distances[nearest] > 1:
                alone += 1
                continue
            boxes = max(boxes, float(distances[nearest]))
            scores = max(scores, abs(float(now.scores[rows[nearest]] - score)))
    return f"score {scores:.1e}, box {boxes:.1e} px, {alone} of {total} without a partner within a pixel"


@contextmanager
def timed_stages(network: torch.nn.Module) -> Iterator[dict[str, float]]:
    """Seconds spent in each part of a detector inside the block."""
    seconds: dict[str, float] = defaultdict(float)
    handles = []
    for name in STAGES:
        part, begun = getattr(network, name), [0.0]

        def begin(*_: Any, begun: list[float] = begun) -> None:
            begun[0] = time.perf_counter()

        def end(*_: Any, begun: list[float] = begun, name: str = name) -> None:
            seconds[name] += time.perf_counter() - begun[0]

        handles += [part.register_forward_pre_hook(begin), part.register_forward_hook(end)]
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


def stages(model: TorchModel, files: Sequence[Path], folder: Path) -> dict[str, dict[str, float]]:
    """Milliseconds an image of every step, before and now."""
    return {
        "before": _stages(
            lambda pixels: detect_before(model, pixels), model.trained.model, files, folder, "png"
        ),
        "now": _stages(lambda pixels: model.detect([pixels])[0], model._network, files, folder, "jpg"),
    }


def _stages(
    detect: Callable[[np.ndarray], Prediction],
    network: torch.nn.Module,
    files: Sequence[Path],
    folder: Path,
    suffix: str,
) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    options: dict[str, Any] = {"quality": 90, "subsampling": 0} if suffix == "jpg" else {}
    detect(read_image(files[0])[0])
    with timed_stages(network) as inside:
        for path in files:
            started = time.perf_counter()
            pixels = read_image(path)[0]
            decoded = time.perf_counter()
            found = detect(pixels)
            detected = time.perf_counter()
            kept = found.select(np.flatnonzero(found.scores >= SCORE)[:LIMIT])
            kept.draw(pixels).save(folder / f"stage.{suffix}", **options)
            total["decode"] += decoded - started
            total["detect"] += detected - decoded
            total["draw and save"] += time.perf_counter() - detected
    total["resize, normalise, postprocess"] = total.pop("detect") - sum(inside.values())
    merged = {**{name: inside[name] for name in STAGES}, **total}
    return {name: round(1e3 * seconds / len(files), 2) for name, seconds in merged.items()}


def cpu_seconds(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """As `protocol.interleaved`, in CPU seconds of all threads."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(1 + repeats):
        for name, run in runs.items():
            started = time.process_time()
            run()
            if turn > 0:
                seconds[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measured(
    case: str, checkpoint: Path, folder: Path, files: Sequence[Path], args: argparse.Namespace
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of one model, and what is to be said about it."""
    # 124b857 computed in float32. A checkpoint's own precision would compare two things at once.
    predictor = load_predictor(checkpoint, device="cpu", precision="float32", score=SCORE)
    model = predictor.model
    assert isinstance(model, TorchModel)
    images = [read_image(path)[0] for path in files]
    count, batch = len(files), args.batch
    notes: dict[str, Any] = {f"{case}: largest differences": differences(model, images[:2])}
    rows = []
    if wanted(case, args.only):
        runs: dict[str, Callable[[], Any]] = {
            "before": lambda: predict_before(model, files, folder / "before"),
            "now": lambda: predict_now(predictor, files, folder / "now", batch),
        }
        seconds = interleaved(runs, args.repeats)
        rows.append(Row(case, "124b857", TIME, seconds["now"] / count, seconds["before"] / count))
        notes[f"{case}: images a second"] = {k: round(count / v, 3) for k, v in seconds.items()}
        notes[f"{case}: ms an image"] = stages(model, files, folder)
    if wanted(f"{case}/network", args.only):
        # In turns of one batch, and not of all images: what else the machine does changes by the second.
        turns = {name: cycle(range(0, count, batch)) for name in ("before", "now", "batch")}

        def some(name: str) -> Sequence[np.ndarray]:
            start = next(turns[name])
            return images[start : start + batch]

        runs = {
            "before": lambda: [detect_before(model, pixels) for pixels in some("before")],
            "now": lambda: [model.detect([pixels]) for pixels in some("now")],
            "batch": lambda: model.detect(some("batch")),
        }
        seconds = cpu_seconds(runs, max(args.repeats, count // batch))
        before, now, together = (seconds[name] / batch for name in ("before", "now", "batch"))
        rows.append(Row(f"{case}/network", "124b857", TIME, now, before))
        rows.append(Row(f"{case}/network/batch", "one at a time", TIME, together, now))
    return rows, notes


def batches(args: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """The case of a whole batch on this device, its sides in processes of their own."""
    cuda = args.device == "cuda"
    name = CUDA_CASE if cuda else CPU_CASE
    if not wanted(name, args.only):
        return [], {}
    height, width = (64, 96) if args.small else (800, 1333) if cuda else SIZE
    shape = {"height": height, "width": width, "device": args.device}
    ours = Spec("richsem", "inference", str(ROOT), **shape, threads=args.threads or 0, small=args.small)
    others = {"transformers": replace(ours, side="transformers")} if has_transformers() else {}
    with previous_tree(args.previous) as folder:
        before = replace(ours, tree=str(folder))
        if cuda:
            others = {f"{key} bfloat16": replace(side, autocast="bfloat16") for key, side in others.items()}
            others["previous bfloat16 channels-last"] = with_options(before, amp=True, channels_last=True)
        else:
            ours = with_options(ours, **FLOAT32)
            others["previous"] = with_options(before, **FLOAT32)
        rows, notes = measure(Case(name, {OURS: ours} | others), args.repeats)
    if not has_transformers():
        notes["left out"] = {"transformers": "not installed"}
    return rows, notes


def files_to_drawings(args: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """The cases that begin at JPEG files, on the CPU."""
    rows: list[Row] = []
    notes: dict[str, Any] = {"images": f"JPEGs of {SIZE[1]}x{SIZE[0]}, {args.images}", "batch": args.batch}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [folder / f"{i:03d}.jpg" for i in range(max(args.images))]
        cases: dict[str, tuple[Callable[[], Path], int]] = {}
        if args.checkpoint.is_file():
            cases["inference/quickstart"] = (lambda: args.checkpoint, args.images[0])
        r50 = f"inference/r50/{args.network_size[0]}"
        cases[r50] = (lambda: random_r50(folder / "r50.pth", *args.network_size), args.images[1])
        for case, (checkpoint, count) in cases.items():
            if any(wanted(name, args.only) for name in (case, f"{case}/network")):
                for i, path in enumerate(files[:count]):
                    path.write_bytes(jpeg(*SIZE, i))
                more, said = measured(case, checkpoint(), folder, files[:count], args)
                rows, notes = rows + more, notes | said
    return rows, notes


def main(arguments: list[str] | None = None) -> int:
    parser = argument_parser(__doc__, device="cuda runs the last case alone")
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/quickstart/run/checkpoint.pth"))
    parser.add_argument("--images", type=int, nargs=2, default=[24, 4], help="for the quickstart and R50")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument(
        "--network_size", type=int, nargs=2, default=list(SIZE), help="of R50, short and long"
    )
    parser.add_argument("--previous", type=Path, metavar="FOLDER", help="files of 18081fd, in place of git")
    parser.add_argument("--small", action="store_true", help="tiny models in whole batches: does it run")
    args = parser.parse_args(arguments)
    if any(number % args.batch for number in args.images):
        raise UserError("--images must be multiples of --batch")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but there is no GPU")
    torch.set_num_threads(args.threads or torch.get_num_threads())
    rows, notes = batches(args)
    if args.device == "cpu":
        more, said = files_to_drawings(args)
        rows, notes = rows + more, notes | said
    packages = ("torchvision", "timm", "pillow", "numpy", "transformers")
    report(rows, device=args.device, packages=packages, json_path=args.json, notes=notes)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
