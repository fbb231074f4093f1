"""The ImageNet-LVIS half: images with one class label and no boxes, in Detic's format."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from .scene import Thing, compose
from .vocabulary import MiniClass, Vocabulary

_SIDES = (96, 176)
_JPEG_QUALITY = 90
# How many unlabelled things stand beside the labelled one, of classes that are not rare.
_COMPANY_SHARE = (0.6, 0.28, 0.12)


def draw_one(rng: Generator, vocabulary: Vocabulary, named: MiniClass) -> np.ndarray:
    """The named thing, off the middle and larger than what else is there -> (h, w, 3) uint8."""
    height, width = (int(v) for v in rng.integers(_SIDES[0], _SIDES[1] + 1, 2))
    side = min(height, width)
    size = side * rng.uniform(0.35, 0.72)
    room = 0.5 * size / np.array((width, height))
    x, y = rng.uniform(np.minimum(room, 0.45), 1 - np.minimum(room, 0.45)) * (width, height)
    things = [Thing(named.kind, size, (float(x), float(y)))]
    for _ in range(rng.choice(3, p=_COMPANY_SHARE)):
        company = vocabulary.often_seen[rng.integers(len(vocabulary.often_seen))]
        things.append(Thing(company.kind, size * rng.uniform(0.3, 0.6)))
    clutter, lookalikes = int(rng.integers(1, 5)), int(rng.random() < 0.3)
    image, _ = compose(rng, height, width, things, clutter, lookalikes, vocabulary.ids)
    return image


@dataclass(frozen=True)
class Job:
    """An image to draw: where, of what, and the seed of its own random stream."""

    root: Path
    file_name: str
    vocabulary: Vocabulary
    named: MiniClass
    seed: tuple[int, ...]


def image_level_jobs(root: Path, vocabulary: Vocabulary, images: int, seed: tuple[int, ...]) -> list[Job]:
    """About `images` images of every class, some classes getting more, in a folder for each class."""
    rng = np.random.default_rng([*seed, 0])
    return [
        Job(root, f"{c.wnid}/{c.wnid}_{i + 1}.JPEG", vocabulary, c, (*seed, c.id, i))
        for c in vocabulary.classes
        for i in range(max(1, round(images * rng.uniform(0.75, 1.25))))
    ]


def _write(job: Job) -> tuple[int, int]:
    image = draw_one(np.random.default_rng(job.seed), job.vocabulary, job.named)
    path = job.root / job.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, format="JPEG", quality=_JPEG_QUALITY)
    return image.shape[:2]


def draw_image_level(jobs: Sequence[Job], parallel_map: Callable = map) -> list[dict]:
    """Draws and writes the images -> Detic's `images` entries, ids from 1 in the order of the jobs."""
    return [
        {
            "id": image_id,
            "file_name": job.file_name,
            "pos_category_ids": [job.named.id],
            "width": width,
            "height": height,
        }
        for image_id, (job, (height, width)) in enumerate(
            zip(jobs, parallel_map(_write, jobs), strict=True), start=1
        )
    ]
