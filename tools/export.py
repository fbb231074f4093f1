"""Exports a trained model to a file that runs without this project, and verifies the file.

python tools/export.py CKPT --format onnx|torch --output FILE [--images FOLDER] [--size HxW|any]

onnx: for onnxruntime and others, opset 18. torch: a `.pt2` of torch.export. Post-processing is inside; class
names and preprocessing are in the file's metadata, so `tools/predict.py FILE IMAGES` runs both.
The file is run on images beside the checkpoint, and detections are compared one to one. The last line is
`verified: worst box N px, worst score N over K detections`, or `NOT VERIFIED: ...` with exit status 1.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image

from config.word_flags import add_word_flags, word_arguments
from inference.export.exported_model import ExportedModel
from inference.export.graph import ANY_SIZE_DIVISOR, trace
from inference.export.info import ONNX, PT2, ExportInfo, Precision, is_exported
from inference.export.verify import latencies, verify
from inference.export.write import write_onnx, write_pt2
from inference.inputs import find_images
from inference.load import load_predictor
from inference.onnx_model import OnnxModel
from inference.pt2_model import Pt2Model
from inference.torch_model import TorchModel
from util.errors import UserError, run_command
from util.pixels import Size

_SUFFIXES = {"onnx": ONNX, "torch": PT2}
_GENERATED = 8


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--format", required=True, choices=tuple(_SUFFIXES))
    parser.add_argument("--output", type=Path, required=True, help="the file to write")
    parser.add_argument(
        "--images", type=Path, nargs="+", help="images or folders to verify with; default: generated ones"
    )
    parser.add_argument(
        "--size",
        default="",
        help="HEIGHTxWIDTH that every image is fitted into and padded to; any: padded to multiples of 64; "
        "default: the short side x the long side of evaluation",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="float32",
        help="of linear layers and convolutions; float16 halves the file (default: float32)",
    )
    parser.add_argument(
        "--best", type=int, help="compare so many detections of every image, whatever their score"
    )
    parser.add_argument(
        "--annotations", type=Path, help="LVIS file with the class names of an official checkpoint"
    )
    add_word_flags(parser)
    return parser.parse_args(arguments)


def choose_canvas(words: str, model: TorchModel) -> Size | None:
    """--size as (height, width), None for any. Raises UserError for a size that the network cannot have."""
    if words == "any":
        return None
    if not words:
        return model.policy.short_side, model.policy.max_size
    height, _, width = words.partition("x")
    if not (height.isdigit() and width.isdigit() and min(int(height), int(width)) >= 64):
        raise UserError(f"--size {words}: give HEIGHTxWIDTH in pixels, each at least 64, or `any`")
    return int(height), int(width)


def export_info(model: TorchModel, canvas: Size | None, precision: Precision = "float32") -> ExportInfo:
    """The metadata of a model's export."""
    policy = model.policy
    return ExportInfo(
        class_names=tuple(model.class_names),
        frequencies=tuple(model.frequencies),
        short_side=policy.short_side,
        max_size=policy.max_size,
        fixed_size=policy.fixed_size,
        canvas=canvas,
        size_divisor=1 if canvas else ANY_SIZE_DIVISOR,
        precision=precision,
    )


def write(model: TorchModel, info: ExportInfo, kind: str, path: Path) -> ExportedModel:
    """Writes the file and loads it again."""
    start = time.perf_counter()
    program = trace(model.trained.model, model.trained.postprocess, info.canvas, info.precision)
    if kind == "onnx":
        write_onnx(program, info, path)
    else:
        write_pt2(program, info, path)
    seconds = time.perf_counter() - start
    sizes = "images of any size" if info.canvas is None else "images of {}x{}".format(*info.canvas)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {sizes}, written in {seconds:.0f} s")
    return OnnxModel(path, "cpu", torch.get_num_threads()) if kind == "onnx" else Pt2Model(path)


def generated_images(folder: Path, size: Size) -> list[Path]:
    """Coloured rectangles on gradients: images of any checkpoint's size where the user names none."""
    rng = np.random.default_rng(0)
    files = []
    for i in range(_GENERATED):
        height, width = (max(64, int(side * rng.uniform(0.6, 1))) for side in size)
        ramp = np.linspace(0, 255, width)[None, :, None] * rng.uniform(0, 1, 3)
        pixels = np.broadcast_to(ramp, (height, width, 3)).astype(np.uint8).copy()
        for _ in range(12):
            top, left = rng.integers(height), rng.integers(width)
            high, wide = rng.integers(8, 1 + max(8, height // 2)), rng.integers(8, 1 + max(8, width // 2))
            pixels[top : top + high, left : left + wide] = rng.integers(0, 256, 3)
        files.append(folder / f"generated_{i}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


def check(model: TorchModel, exported: ExportedModel, images: list[Path], best: int | None) -> int:
    """Verifies and times; prints both. The exit status."""
    result = verify(model.trained, exported, images, best)
    checkpoint, file = latencies(model.trained, exported, images[0])
    threads = torch.get_num_threads()
    print(
        f"CPU, {threads} threads, one image, medians: PyTorch {checkpoint * 1e3:.1f} ms, "
        f"exported file {file * 1e3:.1f} ms"
    )
    ranking = result.ranking
    print(
        f"{ranking.moved} of {ranking.queries} queries come from another proposal than PyTorch alone would "
        f"take, at a difference in score of at most {ranking.gap:.2g}; PyTorch follows the file's choice"
    )
    what = f"the best {best} of each" if best else f"those of a score from {result.threshold:.3g}"
    print(
        f"{result.images} images, {result.detections.pairs} detections ({what}), tolerances: box "
        f"{result.tolerance.box} px, score {result.tolerance.score}"
    )
    for fault in result.faults[:10]:
        print(f"  {fault}")
    print(result.line)
    return 1 if result.faults else 0


def main(arguments: list[str] | None = None) -> int:
    """Writes and verifies. Raises UserError where the model cannot be exported."""
    args = parse_arguments(arguments)
    if args.output.suffix != _SUFFIXES[args.format]:
        raise UserError(
            f"--output {args.output}: a file of --format {args.format} ends in {_SUFFIXES[args.format]}"
        )
    images = find_images(args.images) if args.images else []
    if is_exported(args.checkpoint):
        raise UserError(f"{args.checkpoint}: is an exported file already; name the checkpoint")
    predictor = load_predictor(
        args.checkpoint,
        device="cpu",
        precision="float32",
        annotations=args.annotations,
        **word_arguments(args),
    )
    model = predictor.model
    assert isinstance(model, TorchModel)
    info = export_info(model, choose_canvas(args.size, model), args.precision)
    exported = write(model, info, args.format, args.output)
    with tempfile.TemporaryDirectory() as folder:
        if not images:
            print(f"no --images: verified with {_GENERATED} generated ones")
            images = generated_images(
                Path(folder), info.canvas or (model.policy.short_side, model.policy.max_size)
            )
        return check(model, exported, images, args.best)


if __name__ == "__main__":
    sys.exit(run_command(main))
