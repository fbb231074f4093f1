"""Annotation files of LVIS's size and shape, drawn at random: for benchmarks and tests.

Like LVIS v1: 1,203 classes with its long tail, most images with few classes and some with many boxes of
one, verified absent and not exhaustively annotated classes, polygons of some fifty corners. The same
arguments give the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

CLASSES = 1203
# Training images that show the 1st, 101st, 201st, ... most frequent class of LVIS v1.
_IMAGES_OF_EVERY_100TH = (1977, 1609, 595, 221, 103, 61, 38, 25, 14, 9, 5, 2, 1)
_NEGATIVES_PER_IMAGE = 9
_NOT_EXHAUSTIVE_SHARE = 0.08
_POLYGONS = 512
_CHUNK = 20_000


class Size(NamedTuple):
    """Images and boxes of a split."""

    images: int
    boxes: int


TRAIN = Size(100_170, 1_270_141)
VAL = Size(19_809, 244_707)


@dataclass(frozen=True)
class LvisColumns:
    """I images, N boxes in the file's order, K classes.

    image_ids: (I,).  heights, widths: (I,).
    image: (N,) index into the images.  category: (N,) id 1..K.
    boxes_xywh: (N, 4) pixels, two decimals, inside the image.  areas: (N,) of the masks.
    image_counts, instance_counts: (K,) of class id 1..K.
    negatives, not_exhaustive: category ids by image.
    """

    image_ids: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    image: np.ndarray
    category: np.ndarray
    boxes_xywh: np.ndarray
    areas: np.ndarray
    image_counts: np.ndarray
    instance_counts: np.ndarray
    negatives: list[list[int]]
    not_exhaustive: list[list[int]]


def write_lvis(
    path: Path,
    images: int = TRAIN.images,
    boxes: int = TRAIN.boxes,
    *,
    classes: int = CLASSES,
    seed: int = 0,
    polygons: bool = True,
) -> LvisColumns:
    """Writes an LVIS v1 file (1.1 GB at full size with polygons) and returns what is in it."""
    columns = draw_lvis(images, boxes, classes=classes, seed=seed)
    shapes = _polygon_texts(np.random.default_rng([seed, 1])) if polygons else ["[]"]
    with path.open("w", encoding="utf-8") as file:
        file.write('{"info": {"description": "drawn at random, in the form of LVIS v1"}, "annotations": [')
        _write_joined(file, _annotation_texts(columns, shapes))
        file.write('], "images": [')
        _write_joined(file, _image_texts(columns))
        file.write('], "licenses": [], "categories": ')
        json.dump(_categories(columns), file)
        file.write("}")
    return columns


def draw_lvis(images: int, boxes: int, *, classes: int = CLASSES, seed: int = 0) -> LvisColumns:
    """What `write_lvis` writes, without the file."""
    rng = np.random.default_rng(seed)
    wanted = rng.permutation(images_by_class(images, classes))
    shown = np.concatenate([rng.choice(images, n, replace=False) for n in wanted])
    category = np.repeat(np.arange(1, classes + 1), wanted)
    keep = np.sort(rng.permutation(len(shown))[:boxes])
    shown, category = shown[keep], category[keep]
    heavy = rng.exponential(size=len(shown)) ** 3
    copies = 1 + rng.multinomial(boxes - len(shown), heavy / heavy.sum())
    order = rng.permutation(np.repeat(np.arange(len(shown)), copies))
    upright = rng.random(images) < 0.25
    heights, widths = np.where(upright, 640, 480), np.where(upright, 480, 640)
    boxes_xywh = _boxes(rng, heights[shown[order]], widths[shown[order]])
    areas = boxes_xywh[:, 2] * boxes_xywh[:, 3] * rng.uniform(0.4, 0.95, len(order))
    absent, not_exhaustive = _lists(rng, shown, category, images, classes)
    return LvisColumns(
        image_ids=np.sort(rng.choice(6 * images, images, replace=False) + 1),
        heights=heights,
        widths=widths,
        image=shown[order],
        category=category[order],
        boxes_xywh=boxes_xywh,
        areas=np.round(areas, 2),
        image_counts=np.bincount(category, minlength=classes + 1)[1:],
        instance_counts=np.bincount(category[order], minlength=classes + 1)[1:],
        negatives=absent,
        not_exhaustive=not_exhaustive,
    )


def images_by_class(images: int, classes: int) -> np.ndarray:
    """(classes,) how many images show each class, most frequent first: LVIS's curve, scaled."""
    anchors = np.log(_IMAGES_OF_EVERY_100TH)
    ranks = np.linspace(0, len(anchors) - 1, classes)
    counts = np.exp(np.interp(ranks, np.arange(len(anchors)), anchors)) * images / TRAIN.images
    return np.clip(np.round(counts), 1, images).astype(np.int64)


def _boxes(rng: np.random.Generator, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """(N, 4) xywh with two decimals: many small, some that fill the image."""
    limits = np.stack([widths, heights], 1)
    sides = limits * np.exp(
        rng.uniform(np.log(0.01), 0, (len(heights), 1)) + rng.normal(0, 0.3, limits.shape)
    )
    sides = np.round(np.clip(sides, 1, limits), 2)
    corners = np.floor(rng.random(limits.shape) * (limits - sides) * 100) / 100
    return np.concatenate([corners, sides], 1)


def _lists(
    rng: np.random.Generator, shown: np.ndarray, category: np.ndarray, images: int, classes: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Category ids by image: verified absent, and shown but not exhaustively annotated."""
    partly = rng.random(len(shown)) < _NOT_EXHAUSTIVE_SHARE
    not_exhaustive: list[list[int]] = [[] for _ in range(images)]
    for image, identity in zip(shown[partly].tolist(), category[partly].tolist(), strict=True):
        not_exhaustive[image].append(identity)
    drawn = np.unique(rng.integers(images * classes, size=images * min(_NEGATIVES_PER_IMAGE, classes)))
    drawn = np.setdiff1d(drawn, shown * classes + category - 1, assume_unique=True)
    absent: list[list[int]] = [[] for _ in range(images)]
    for image, identity in zip((drawn // classes).tolist(), (drawn % classes + 1).tolist(), strict=True):
        absent[image].append(identity)
    return absent, not_exhaustive


def _polygon_texts(rng: np.random.Generator) -> list[str]:
    """Outlines as JSON. Boxes take them in turn: nobody compares them, but they have to be read."""
    texts = []
    for corners in np.clip(rng.lognormal(np.log(38), 0.7, _POLYGONS), 4, 400).astype(int):
        turns = np.sort(rng.uniform(0, 2 * np.pi, corners))
        points = 240 + 200 * np.stack([np.cos(turns), np.sin(turns)], 1) * rng.uniform(0.6, 1, (corners, 1))
        texts.append(json.dumps([np.round(points, 2).ravel().tolist()]))
    return texts


def _write_joined(file: TextIO, texts: Iterator[str]) -> None:
    chunk: list[str] = []
    between = ""
    for text in texts:
        chunk.append(text)
        if len(chunk) == _CHUNK:
            file.write(between + ", ".join(chunk))
            between, chunk = ", ", []
    file.write(between * bool(chunk) + ", ".join(chunk))


def _annotation_texts(columns: LvisColumns, polygons: list[str]) -> Iterator[str]:
    rows = zip(
        columns.areas.tolist(),
        columns.image_ids[columns.image].tolist(),
        columns.boxes_xywh.tolist(),
        columns.category.tolist(),
        strict=True,
    )
    for number, (area, image, box, category) in enumerate(rows):
        yield (
            f'{{"area": {area}, "id": {number + 1}, "segmentation": {polygons[number % len(polygons)]}, '
            f'"image_id": {image}, "bbox": {box}, "category_id": {category}}}'
        )


def _image_texts(columns: LvisColumns) -> Iterator[str]:
    for index, identity in enumerate(columns.image_ids.tolist()):
        name = f"{identity:012d}.jpg"
        image = {
            "date_captured": "2013-11-15 02:41:42",
            "neg_category_ids": columns.negatives[index],
            "id": identity,
            "license": 1,
            "height": int(columns.heights[index]),
            "width": int(columns.widths[index]),
            "flickr_url": f"http://farm5.staticflickr.com/4050/{identity}_z.jpg",
            "coco_url": f"http://images.cocodataset.org/train2017/{name}",
            "not_exhaustive_category_ids": columns.not_exhaustive[index],
        }
        yield json.dumps(image)


def _categories(columns: LvisColumns) -> list[dict]:
    counts = zip(columns.image_counts.tolist(), columns.instance_counts.tolist(), strict=True)
    return [
        {
            "id": number + 1,
            "name": f"thing_{number + 1:04d}",
            "synset": f"thing.n.{number + 1:04d}",
            "synonyms": [f"thing_{number + 1:04d}", f"object_{number + 1:04d}"],
            "def": "something that was drawn at random",
            "frequency": "r" if images <= 10 else "c" if images <= 100 else "f",
            "image_count": images,
            "instance_count": boxes,
        }
        for number, (images, boxes) in enumerate(counts)
    ]
