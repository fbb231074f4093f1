"""What an exported file says about itself. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from datasets.images.preprocess import Preprocess
from util.errors import UserError, first_line
from util.hub import file_of
from util.pixels import IMAGENET_MEAN, IMAGENET_STD, Size

# The entry of ONNX's metadata and the extra file of a .pt2 that hold it, as JSON.
KEY = "richsem"
FORMAT = 1
# A side of an input.
MOST_PIXELS = 16384

ONNX = ".onnx"
PT2 = ".pt2"

Precision = Literal["float32", "float16"]

INPUTS = ("images", "sizes", "original_sizes")
OUTPUTS = ("scores", "labels", "boxes_xyxy", "proposals")


@dataclass(frozen=True)
class ExportInfo:
    """Everything but the graph that a runner needs, and what the file was made from.

    class_names, frequencies: of the C class columns, as `ImageModel` has them.
    short_side, max_size, fixed_size: the resize of the checkpoint's evaluation, see `EvalSize`.
    canvas:       (height, width) of every input; images are shrunk to fit in it. None for inputs of any size.
    size_divisor: height and width of an input are multiples of this.
    precision:    'float32', or 'float16' where linear layers and convolutions are in it.
    mean, std:    what RGB values of 0..1 are normalised by; padding is 0 after that.
    """

    class_names: tuple[str, ...]
    frequencies: tuple[str, ...]
    short_side: int
    max_size: int
    fixed_size: bool
    canvas: Size | None
    size_divisor: int
    precision: Precision = "float32"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    format: int = FORMAT

    @property
    def preprocess(self) -> Preprocess:
        """From images to the graph's input."""
        return Preprocess(
            self.short_side,
            self.max_size,
            self.fixed_size,
            size_divisor=self.size_divisor,
            canvas=self.canvas,
        )

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str, source: object) -> ExportInfo:
        """source: the file it was read from, for messages. Raises UserError for any other text."""
        try:
            info = msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            reason = first_line(error)
            raise UserError(f"{source}: its metadata cannot be read ({reason}); export it again") from None
        if info.format != FORMAT:
            raise UserError(f"{source}: was exported by another version of this project; export it again")
        info._check(source)
        return info

    def _check(self, source: object) -> None:
        """Raises UserError for numbers that no export writes."""
        sides = (self.short_side, self.max_size, self.size_divisor, *(self.canvas or ()))
        constants = (*self.mean, *self.std)
        fits = (
            len(self.class_names) == len(self.frequencies) > 0
            and all(1 <= side <= MOST_PIXELS for side in sides)
            and len(self.mean) == len(self.std) == 3
            and all(map(math.isfinite, constants))
            and all(value > 0 for value in self.std)
        )
        if not fits:
            raise UserError(f"{source}: its metadata hold numbers that no export writes; export it again")


def is_exported(path: str | Path, *suffixes: str) -> bool:
    """Whether a path, here or on the Hub, names a file of `tools/export.py`: of these suffixes, or of any."""
    return Path(file_of(path)).suffix in (suffixes or (ONNX, PT2))


def check_fixed(path: str | Path, *, words: bool, precision: str | None, compiled: bool) -> None:
    """Raises UserError where an exported file is asked for what its export has decided.

    words: whether it is asked for other words than its classes.
    """
    if words:
        raise UserError(f"{path}: an exported file has fixed classes; give --names to tools/export.py")
    if precision is not None or compiled:
        raise UserError(
            f"{path}: an exported file has its own precision and is not compiled again; leave out "
            "--precision and --compile"
        )
