"""torchvision's photometric transforms by name, as the key `photometric` lists them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from datasets.images.preprocess import ImageError
from util.errors import UserError, nearest

# Boxes do not follow these transforms, so they must not move pixels.
PHOTOMETRIC = (
    "ColorJitter", "GaussianBlur", "GaussianNoise", "Grayscale", "JPEG", "RandomAdjustSharpness",
    "RandomAutocontrast", "RandomChannelPermutation", "RandomEqualize", "RandomErasing", "RandomGrayscale",
    "RandomInvert", "RandomPhotometricDistort", "RandomPosterize", "RandomSolarize",
)  # fmt: skip
# These apply others, with a probability or in random order.
_COMBINING = ("RandomApply", "RandomChoice", "RandomOrder")


class Photometric:
    """Transforms applied one after another.

    calls: as in Python, for example "GaussianBlur(5)" or "RandomApply([ColorJitter(hue=0.1)], p=0.3)".
    Raises UserError for a call that is not one of a photometric transform, or fails on an image.
    """

    def __init__(self, calls: Sequence[str]) -> None:
        self.transforms = [_transform(call) for call in calls]
        probe = torch.zeros((3, 64, 64), dtype=torch.uint8)
        for call, transform in zip(calls, self.transforms, strict=True):
            try:
                result = _seeded(transform, probe, 0)
            except Exception as error:  # whatever its arguments lead it to
                raise _refusal(call, _line(error)) from None
            if (result.shape, result.dtype) != (probe.shape, probe.dtype):
                raise _refusal(call, "an image does not stay (3, H, W) uint8")

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """(3, H, W) uint8 -> the same, by random numbers that depend on `seed` alone.

        Raises ImageError for an image that is too small for a transform, as one pixel is for a blur.
        """
        try:
            return _seeded(v2.Compose(self.transforms), image, seed)
        except (RuntimeError, ValueError) as error:
            height, width = image.shape[1:]
            raise ImageError(f"photometric: {width}x{height} pixels: {_line(error)}") from None


def _seeded(transform: Any, image: Tensor, seed: int) -> Tensor:
    # torchvision draws from torch's global generator, which is left as it was. Only that of the CPU:
    # `torch.manual_seed` would also reseed the GPU, and with it the model.
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(seed)
        return transform(image)
    finally:
        torch.set_rng_state(state)


def _transform(call: str) -> Any:
    try:
        expression = ast.parse(call, mode="eval").body
        if not isinstance(expression, ast.Call):
            raise ValueError(call)
        return _value(expression, call)
    except (SyntaxError, ValueError):
        raise _refusal(call, "write it as a call with plain arguments, like 'GaussianBlur(5)'") from None


def _value(node: ast.expr, call: str) -> Any:
    """A literal, or the transform that a call names. Raises ValueError for other expressions."""
    if isinstance(node, ast.List):
        return [_value(item, call) for item in node.elts]
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return ast.literal_eval(node)
    name, known = node.func.id, (*PHOTOMETRIC, *_COMBINING)
    if name not in known:
        if hasattr(v2, name):
            raise _refusal(call, f"{name} is not photometric: boxes would not follow it")
        raise _refusal(call, f"unknown transform {name!r}.{nearest(name, known)}")
    if not hasattr(v2, name):
        raise _refusal(call, f"this torchvision has no {name}")
    arguments = [_value(argument, call) for argument in node.args]
    keywords = {k.arg: _value(k.value, call) for k in node.keywords if k.arg}
    try:
        return getattr(v2, name)(*arguments, **keywords)
    except Exception as error:  # whatever is wrong with the arguments
        raise _refusal(call, _line(error)) from None


def _refusal(call: str, reason: str) -> UserError:
    return UserError(f"photometric: {call!r}: {reason}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
