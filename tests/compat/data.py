"""Data and a CLIP for stored checkpoints: drawn anew for each test run, always with the same bytes.

Nothing of the project is imported here, so that a refactor cannot change what a stored checkpoint meets.
Images are PNGs of 64 x 64 pixels: no decoder and no resize can round them differently on another machine.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image

# (name, category id, frequency, color). Ids have a gap, as LVIS's do.
CLASSES = (
    ("red_square", 1, "f", (220, 30, 30)),
    ("green_square", 2, "c", (30, 200, 40)),
    ("blue_square", 5, "r", (40, 60, 220)),
)
SIDE = 64
_IMAGE_LEVEL = 9  # images, as many of each class
_TRAIN, _VAL, _EXTRA = range(3)  # first numbers of the random streams


def write_data(root: Path, train: int, val: int) -> Path:
    """Writes `train` and `val` images with boxes, and nine with labels only. Returns `root`."""
    _write_boxed(root / "lvis_v1", "train", _TRAIN, range(1, 1 + train))
    _write_boxed(root / "lvis_v1", "val", _VAL, range(1001, 1001 + val))
    _write_image_level(root / "imagenet-lvis")
    return root


def write_clip(folder: Path) -> tuple[Path, Path]:
    """Writes the settings (JSON) and the weights of a tiny CLIP: an attention-pooled ResNet, 16 dimensions.

    Each weight is a function of its name and shape, so no initialization can change it.
    """
    vision = {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    folder.mkdir(parents=True, exist_ok=True)
    settings, weights = folder / "compat_clip.json", folder / "compat_clip.pt"
    settings.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    state = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).state_dict()
    torch.save({name: _weight(name, tensor) for name, tensor in state.items()}, weights)
    return settings, weights


def _weight(name: str, like: torch.Tensor) -> torch.Tensor:
    if not like.is_floating_point() or name == "attn_mask":
        return like
    if name == "logit_scale":
        return torch.full_like(like, np.log(20.0))
    values = np.asarray(_random(zlib.crc32(name.encode())).standard_normal(tuple(like.shape)))
    if name.endswith("running_var"):
        values = 0.5 + 0.25 * np.abs(values)
    elif like.ndim == 1:
        values = (0.0 if name.endswith(("bias", "running_mean")) else 1.0) + 0.1 * values
    elif name == "token_embedding.weight":
        values = 5.0 * values  # above the positions, so that names differ in their embeddings
    elif like.ndim > 1:
        values = values * (3.0 if "in_proj" in name else 1.0) / np.sqrt(np.prod(like.shape[1:]))
    return torch.from_numpy(np.asarray(values)).to(like.dtype)


def _random(*seeds: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seeds))


def _write_boxed(root: Path, split: str, stream: int, ids: range) -> None:
    images, annotations = [], []
    for image_id in ids:
        random = _random(stream, image_id)
        # One to three squares, each in its own quarter of the image, so that none covers another.
        quarters = random.permutation(4)[: 1 + image_id % 3]
        boxes = [_box(random, int(quarter)) for quarter in quarters]
        shown = [_class_of(random) for _ in boxes]
        file_name = f"{split}2017/{image_id:012d}.png"
        _draw(root / file_name, random, zip(boxes, shown, strict=True))
        ids_shown = {CLASSES[index][1] for index in shown}
        images.append(
            {
                "id": image_id,
                "height": SIDE,
                "width": SIDE,
                "coco_url": f"http://images.cocodataset.org/{file_name}",
                "neg_category_ids": [c[1] for c in CLASSES if c[1] not in ids_shown],
                "not_exhaustive_category_ids": [],
            }
        )
        for box, index in zip(boxes, shown, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": CLASSES[index][1],
                    "bbox": [float(x) for x in box],
                    "area": float(box[2] * box[3]),
                    "segmentation": [[0.0, 0.0, 1.0, 1.0, 1.0, 0.0]],
                }
            )
    content = {"images": images, "annotations": annotations, "categories": _categories()}
    _dump(root / "annotations" / f"lvis_v1_{split}.json", content)


def _write_image_level(root: Path) -> None:
    images = []
    for number in range(_IMAGE_LEVEL):
        index = number % len(CLASSES)
        random = _random(_EXTRA, number)
        file_name = f"{CLASSES[index][0]}/{number}.png"
        _draw(root / "images" / file_name, random, [((16, 16, 32, 32), index)])
        entry = {"id": number + 1, "file_name": file_name, "pos_category_ids": [CLASSES[index][1]]}
        images.append({**entry, "height": SIDE, "width": SIDE})
    content = {"images": images, "annotations": [], "categories": _categories()}
    _dump(root / "imagenet_lvis_image_info.json", content)


def _class_of(random: np.random.Generator) -> int:
    """Half are red, three of ten green, two of ten blue."""
    return (0, 0, 0, 0, 0, 1, 1, 1, 2, 2)[int(random.integers(10))]


def _box(random: np.random.Generator, quarter: int) -> tuple[int, int, int, int]:
    """(x, y, width, height) in pixels inside one quarter of the image."""
    width, height = (int(side) for side in random.integers(14, 29, 2))
    left, top = 32 * (quarter % 2), 32 * (quarter // 2)
    return left + int(random.integers(33 - width)), top + int(random.integers(33 - height)), width, height


def _draw(path: Path, random: np.random.Generator, boxes) -> None:
    """A PNG of gray noise with a filled rectangle for each ((x, y, width, height), index into CLASSES)."""
    pixels = np.repeat(random.integers(110, 146, (SIDE, SIDE, 1)), 3, axis=2).astype(np.uint8)
    for (x, y, width, height), index in boxes:
        pixels[y : y + height, x : x + width] = CLASSES[index][3]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _categories() -> list[dict]:
    counts = {"f": 60, "c": 30, "r": 8}
    return [
        {
            "id": identity,
            "name": name,
            "synset": f"{name}.n.01",
            "synonyms": [name],
            "frequency": frequency,
            "image_count": counts[frequency],
        }
        for name, identity, frequency, _ in CLASSES
    ]


def _dump(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
