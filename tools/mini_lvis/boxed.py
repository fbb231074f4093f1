"""The LVIS half: scenes with boxes, as `lvis_v1_{train,val}.json` and images.

Labels are as incomplete as LVIS's:
- Of an image's absent classes only some are known to be absent (`neg_category_ids`).
- Some images show unlabelled things of a class that also has labelled ones (`not_exhaustive_category_ids`).
- Some show a frequent or common class that nobody labelled: then the image is not used for that class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from .outline import outlines
from .plan import how_many
from .scene import MIN_VISIBLE, Thing, Visible, compose
from .vocabulary import MiniClass, Vocabulary

_NEGATIVES = (6, 16)
_UNLABELLED_CLASS = 0.04
_NOT_EXHAUSTIVE = 0.2
_LARGE = 0.045
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class Labels:
    """The annotations of one image: labelled things and the two lists of class ids."""

    labelled: tuple[Visible, ...]
    negative: tuple[int, ...]
    not_exhaustive: tuple[int, ...]


def things_to_place(rng: Generator, classes: Sequence[MiniClass], side: int) -> list[Thing]:
    """One to three things of each class, of 0.18 to 0.45 of the image's side, a few larger."""
    things = []
    for c in classes:
        for _ in range(how_many(rng)):
            share = rng.uniform(0.5, 0.75) if rng.random() < _LARGE else 0.18 * np.exp(rng.uniform(0, 0.9))
            things.append(Thing(c.kind, side * share))
    return things


def label(rng: Generator, vocabulary: Vocabulary, visible: Sequence[Visible]) -> Labels:
    """Labels what is visible enough, and omits what an annotator of LVIS would."""
    ids, often_seen = vocabulary.ids, {c.id for c in vocabulary.often_seen}
    seen = {ids[v.kind] for v in visible}
    labelled, not_exhaustive = [], []
    for class_id in sorted(seen):
        clear = [v for v in visible if ids[v.kind] == class_id and v.share >= MIN_VISIBLE]
        if class_id in often_seen and rng.random() < _UNLABELLED_CLASS:
            continue
        if len(clear) > 1 and rng.random() < _NOT_EXHAUSTIVE:
            clear = clear[: int(rng.integers(1, len(clear)))]
            not_exhaustive.append(class_id)
        labelled.extend(clear)
    absent = [c.id for c in vocabulary.classes if c.id not in seen]
    count = min(len(absent), int(rng.integers(_NEGATIVES[0], _NEGATIVES[1] + 1)))
    negative = sorted(rng.choice(absent, count, replace=False).tolist())
    return Labels(tuple(labelled), tuple(negative), tuple(not_exhaustive))


def annotation(visible: Visible, class_id: int, image_id: int) -> dict:
    """LVIS's entry of one thing, without its id. The box (x, y, width, height) is around what can be seen."""
    rows, columns = visible.mask.any(axis=1).nonzero()[0], visible.mask.any(axis=0).nonzero()[0]
    x, y = int(columns[0]), int(rows[0])
    crop = visible.mask[y : rows[-1] + 1, x : columns[-1] + 1]
    polygons = [[v + (x, y)[i % 2] for i, v in enumerate(p)] for p in outlines(crop)]
    return {
        "image_id": image_id,
        "category_id": class_id,
        "bbox": [float(x), float(y), float(crop.shape[1]), float(crop.shape[0])],
        "area": float(crop.sum()),
        "segmentation": polygons,
    }


@dataclass(frozen=True)
class Scene:
    """An image to draw: its id, place below `root`, classes, and the seed of its own random stream."""

    root: Path
    file_name: str
    image_id: int
    vocabulary: Vocabulary
    classes: tuple[MiniClass, ...]
    side: int
    seed: tuple[int, ...]


Dealt = Sequence[Sequence[MiniClass]]


def scenes(
    root: Path,
    vocabulary: Vocabulary,
    dealt: Dealt,
    side: int,
    seed: tuple[int, ...],
    *,
    first_id: int,
    validation: bool,
) -> list[Scene]:
    """Image ids from `first_id`. As in LVIS, some validation images lie in train2017: the URL tells."""
    found = []
    for i, classes in enumerate(dealt):
        folder = "val2017" if validation and i % 5 != 4 else "train2017"
        name = f"{folder}/{first_id + i:012d}.jpg"
        found.append(Scene(root, name, first_id + i, vocabulary, tuple(classes), side, (*seed, i)))
    return found


def draw_scene(scene: Scene) -> tuple[dict, list[dict]]:
    """Draws and writes one image -> its LVIS entry, and those of its things, which still lack ids."""
    rng = np.random.default_rng(scene.seed)
    things = things_to_place(rng, scene.classes, scene.side)
    clutter, lookalikes = int(rng.integers(1, 6)), int(rng.random() < 0.4)
    ids = scene.vocabulary.ids
    pixels, visible = compose(rng, scene.side, scene.side, things, clutter, lookalikes, ids)
    labels = label(rng, scene.vocabulary, visible)
    Image.fromarray(pixels).save(scene.root / scene.file_name, quality=_JPEG_QUALITY)
    image = {
        "id": scene.image_id,
        "width": scene.side,
        "height": scene.side,
        "license": 1,
        "date_captured": "",
        "coco_url": f"http://mini-lvis.invalid/{scene.file_name}",
        "flickr_url": "",
        "neg_category_ids": list(labels.negative),
        "not_exhaustive_category_ids": list(labels.not_exhaustive),
    }
    return image, [annotation(thing, ids[thing.kind], scene.image_id) for thing in labels.labelled]


def draw_split(scenes: Sequence[Scene], parallel_map: Callable = map) -> tuple[list[dict], list[dict]]:
    """Draws the images of one split -> LVIS's `images` and `annotations`, ids from 1."""
    images: list[dict] = []
    annotations: list[dict] = []
    for image, things in parallel_map(draw_scene, scenes):
        images.append(image)
        first = len(annotations) + 1
        annotations.extend({"id": first + i, **thing} for i, thing in enumerate(things))
    return images, annotations
