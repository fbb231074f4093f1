"""JPEG images drawn at random: smooth shades, sharp edges and a little noise, as photographs have them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

QUALITY = 85
# Side in pixels of a cell of smooth noise, and how many grey levels it deviates.
_SHADES = ((160, 45), (40, 22), (10, 10))
_RECTANGLES = 12
_NOISE = 3


def draw_image(height: int, width: int, seed: int) -> Image.Image:
    """RGB image of (height, width); the same arguments give the same one."""
    random = np.random.default_rng((seed, height, width))
    pixels = torch.full((3, height, width), 128.0)
    for side, deviation in _SHADES:
        cells = random.normal(0, deviation, (1, 3, height // side + 2, width // side + 2))
        pixels += F.interpolate(torch.from_numpy(cells).float(), size=(height, width), mode="bicubic")[0]
    for _ in range(_RECTANGLES):
        top, left = int(random.integers(height)), int(random.integers(width))
        bottom, right = (int(v + random.integers(20, 200)) for v in (top, left))
        shade = torch.from_numpy(random.uniform(-80, 80, (3, 1, 1))).float()
        pixels[:, top:bottom, left:right] += shade
    pixels += torch.from_numpy(random.normal(0, _NOISE, (3, height, width))).float()
    return Image.fromarray(pixels.clamp(0, 255).byte().permute(1, 2, 0).numpy())


def jpeg(height: int, width: int, seed: int) -> bytes:
    """`draw_image` as JPEG of quality 85."""
    content = io.BytesIO()
    draw_image(height, width, seed).save(content, "JPEG", quality=QUALITY)
    return content.getvalue()


def write_detection(root: Path, count: int, height: int, width: int, boxes: int = 12) -> Path:
    """`root`/train2017/*.jpg and `root`/lvis_v1_train.json with `boxes` boxes of ten classes an image.

    Returns the JSON's path.
    """
    random = np.random.default_rng(count)
    images, annotations = [], []
    for identity in range(1, count + 1):
        name = f"train2017/{identity:012d}.jpg"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(height, width, identity))
        images.append({"id": identity, "height": height, "width": width, "file_name": name})
        for _ in range(boxes):
            w, h = random.uniform(5, width / 2), random.uniform(5, height / 2)
            box = [random.uniform(0, width - w), random.uniform(0, height - h), w, h]
            category = int(random.integers(1, 11))
            annotations.append(
                {"id": len(annotations) + 1, "image_id": identity, "category_id": category, "bbox": box}
            )
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, 11)]
    path = root / "lvis_v1_train.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def write_image_level(root: Path, count: int, height: int, width: int) -> None:
    """`count` images in ten class folders below `root`."""
    for number in range(count):
        path = root / f"class {number % 10 + 1}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(height, width, number))


def write_tar(path: Path, members: int, size: int) -> None:
    """A tar of `members` files of `size` bytes, named like ImageNet's."""
    content = bytes(size)
    with tarfile.open(path, "w") as tar:
        for number in range(members):
            member = tarfile.TarInfo(f"n{number % 997:08d}/n{number % 997:08d}_{number}.JPEG")
            member.size = size
            tar.addfile(member, io.BytesIO(content))
