"""Writes the whole dataset: plan, images, and the three JSON files."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.annotations.frequency import frequency_of

from . import plan
from .boxed import draw_split, scenes
from .classes import MINI, TAIL
from .image_level import draw_image_level, image_level_jobs
from .vocabulary import Vocabulary

# First numbers of the random streams, so that no two parts share one.
_DEAL_TRAIN, _DEAL_VAL, _DRAW_TRAIN, _DRAW_VAL, _DRAW_IMAGE_LEVEL = range(5)
_LICENCES = [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}]


@dataclass(frozen=True)
class Settings:
    """What `make_mini_lvis` can be asked for. `image_level` is the mean number of images per class."""

    seed: int = 0
    train: int = 1200
    val: int = 300
    image_level: int = 40
    side: int = 160
    vocabulary: Vocabulary = MINI


# Ten image-level images for every one with boxes.
TAIL_SETTINGS = Settings(val=400, image_level=188, vocabulary=TAIL)


def _info(seed: int) -> dict:
    return {
        "description": f"Mini LVIS: drawn by RichSem's tools/make_mini_lvis.py, seed {seed}",
        "url": "",
        "version": "1",
        "year": 2023,
        "contributor": "",
        "date_created": "",
    }


def _categories(vocabulary: Vocabulary, annotations: list[dict]) -> list[dict]:
    """LVIS's categories, with the counts and the frequency that the training annotations give."""
    images = Counter(c for _, c in {(a["image_id"], a["category_id"]) for a in annotations})
    instances = Counter(a["category_id"] for a in annotations)
    return [
        {
            "id": c.id,
            "name": c.name,
            "synset": f"{c.name}.n.01",
            "synonyms": [c.name, f"{c.kind.colour}_{c.kind.pattern}_{c.kind.shape}"],
            "def": f"a {c.kind.shape} in {c.kind.colour}, {c.kind.pattern}",
            "frequency": frequency_of(images[c.id]),
            "image_count": images[c.id],
            "instance_count": instances[c.id],
        }
        for c in vocabulary.classes
    ]


def _dump(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def write_dataset(root: Path, settings: Settings, parallel_map: Callable = map) -> dict:
    """Writes `root/lvis_v1` and `root/imagenet-lvis`, drawing through `parallel_map(function, jobs)`.

    Returns:
        Counts to print: images and boxes of each part, classes by frequency.
    """
    lvis, extra = root / "lvis_v1", root / "imagenet-lvis"
    for folder in (lvis / "annotations", lvis / "train2017", lvis / "val2017", extra / "images"):
        folder.mkdir(parents=True, exist_ok=True)
    seed, side, vocabulary = settings.seed, settings.side, settings.vocabulary
    dealt_train = plan.deal(
        np.random.default_rng([seed, _DEAL_TRAIN]),
        settings.train,
        plan.train_counts(vocabulary, settings.train),
    )
    dealt_val = plan.deal(
        np.random.default_rng([seed, _DEAL_VAL]), settings.val, plan.val_counts(vocabulary, settings.val)
    )
    first_val = settings.train + 1
    train_scenes = scenes(
        lvis, vocabulary, dealt_train, side, (seed, _DRAW_TRAIN), first_id=1, validation=False
    )
    val_scenes = scenes(
        lvis, vocabulary, dealt_val, side, (seed, _DRAW_VAL), first_id=first_val, validation=True
    )
    train, val = (draw_split(part, parallel_map) for part in (train_scenes, val_scenes))
    jobs = image_level_jobs(extra / "images", vocabulary, settings.image_level, (seed, _DRAW_IMAGE_LEVEL))
    extra_images = draw_image_level(jobs, parallel_map)
    # LVIS's validation file carries the training counts too: they say what is rare.
    categories = _categories(vocabulary, train[1])
    for split, (images, annotations) in (("train", train), ("val", val)):
        content = {"info": _info(seed), "licenses": _LICENCES, "images": images}
        content |= {"annotations": annotations, "categories": categories}
        _dump(lvis / "annotations" / f"lvis_v1_{split}.json", content)
    per_class = Counter(image["pos_category_ids"][0] for image in extra_images)
    extra_categories = [{**c, "image_count": per_class[c["id"]]} for c in categories]
    _dump(
        extra / "imagenet_lvis_image_info.json",
        {"categories": extra_categories, "images": extra_images, "annotations": []},
    )
    return {
        "training images": len(train[0]),
        "training boxes": len(train[1]),
        "validation images": len(val[0]),
        "validation boxes": len(val[1]),
        "image-level images": len(extra_images),
        "classes": dict(sorted(Counter(c["frequency"] for c in categories).items())),
    }
