"""Images of every kind to upright RGB arrays. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from datasets.images.class_sources import IMAGE_SUFFIXES, images_below
from datasets.images.limits import read_file
from datasets.images.modes import to_rgb
from datasets.images.preprocess import EncodedImage, ImageError
from util.errors import UserError

ImageInput = Any
"""A path, a PIL image, a (H, W), (H, W, 3) or (H, W, 4) uint8 array, or a (3, H, W) or (1, H, W) tensor of
uint8, or of floats in 0..1."""


def read_image(image: ImageInput) -> tuple[np.ndarray, str]:
    """(H, W, 3) uint8 RGB, upright: an EXIF orientation is applied; and the file's path, '' if there is none.

    Raises ImageError for a file that is missing or damaged, and UserError for any other input.
    """
    if isinstance(image, (str, Path)):
        return _read_file(Path(image)), str(image)
    if isinstance(image, Image.Image):
        try:
            return np.array(ImageOps.exif_transpose(to_rgb(image))), ""
        except ValueError as error:
            raise ImageError(f"an image: {error}") from None
    if hasattr(image, "detach"):
        image = _array_of(image.detach().cpu().numpy())
    if isinstance(image, np.ndarray):
        channels = image.shape[2] if image.ndim == 3 else 1
        if image.dtype == np.uint8 and image.ndim in (2, 3) and channels in (1, 3, 4) and image.size:
            image = image[..., 0] if image.ndim == 3 and channels == 1 else image
            return np.array(to_rgb(Image.fromarray(image))), ""
        shape = "x".join(map(str, image.shape))
        raise UserError(
            f"an image array must be uint8 of (H, W), (H, W, 3) or (H, W, 4), not {image.dtype} of {shape}"
        )
    raise UserError(f"an image must be a path, a PIL image, an array or a tensor, not {type(image).__name__}")


def _read_file(path: Path) -> np.ndarray:
    try:
        data = read_file(path)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror or error})") from None
    return EncodedImage(data, str(path), upright=True).decode()


def _array_of(tensor: np.ndarray) -> np.ndarray:
    """(1, H, W) or (3, H, W) of uint8 or of floats in 0..1 -> (H, W, 1) or (H, W, 3) uint8."""
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise UserError(f"an image tensor must have the shape (3, H, W), not {tuple(tensor.shape)}")
    if np.issubdtype(tensor.dtype, np.floating):
        if not (tensor.min(initial=0) >= 0 and tensor.max(initial=0) <= 1):
            raise UserError("an image tensor of floats must lie in 0..1 and not be normalised")
        tensor = np.rint(tensor * 255).astype(np.uint8)
    return tensor.transpose(1, 2, 0)


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Every image that is named, or lies inside a folder that is named.

    Raises UserError for a path that does not exist and for a folder without images.
    """
    found = []
    for path in paths:
        if path.is_file():
            found.append(path)
        elif path.is_dir():
            inside = images_below(path)
            if not inside:
                raise UserError(f"{path}: contains no image ({', '.join(IMAGE_SUFFIXES)}).")
            found += [path / name for name in inside]
        else:
            raise UserError(f"{path}: no such image or folder.")
    return found
