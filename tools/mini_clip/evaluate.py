"""Accuracies of a trained teacher. Nothing here is used in training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from PIL import Image
from torch import Tensor

from datasets.annotations.cache import open_annotations
from datasets.images.limits import open_image, read_file
from models.richsem.text_embeddings import PROMPTS

from .images import Labelled
from .model import encode_regions, normalise


@torch.no_grad()
def class_texts(model: CLIP, names: Sequence[str]) -> Tensor:
    """(C, E) unit vectors: the mean over all templates, as RichSem's classifier has them."""
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    rows = []
    for name in names:
        tokens = tokenizer([template(name) for template in PROMPTS]).to(model.logit_scale.device)
        rows.append(model.encode_text(tokens).mean(0))
    return F.normalize(torch.stack(rows).float(), dim=-1)


@torch.no_grad()
def _regions(model: CLIP, image: Image.Image, boxes_xyxy: np.ndarray, scale: float) -> Tensor:
    """(N, 4) boxes in pixels of `image`, which the trunk sees enlarged `scale` times -> (N, E) unit."""
    size = [max(32, round(s * scale)) for s in image.size]
    pixels = torch.from_numpy(np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR)).copy())
    boxes = torch.as_tensor(boxes_xyxy, dtype=torch.float32) * scale
    regions = torch.cat((torch.zeros(len(boxes), 1), boxes), dim=1)
    device = model.logit_scale.device
    features = encode_regions(model.visual, normalise(pixels[None].to(device)), regions.to(device))
    return F.normalize(features, dim=-1)


def image_accuracy(model: CLIP, data: Labelled, texts: Tensor) -> float:
    """Share of images whose own class is the nearest text. NaN without images."""
    right = [
        int((_regions(model, p, np.array([[0, 0, *p.size]]), 1.0) @ texts.T).argmax()) == label
        for p, label in zip(data.images, data.labels, strict=True)
    ]
    return float(np.mean(right)) if right else float("nan")


def box_accuracy(
    model: CLIP, annotations: Path, root: Path, texts: Tensor, scale: float, most_images: int = 300
) -> dict[str, float]:
    """Top-1 over boxes of LVIS-format annotations: of all ('all'), and by class frequency ('r', 'c', 'f')."""
    table = open_annotations(annotations)
    right: dict[str, list[bool]] = {}
    for image in np.unique(table.image_index)[:most_images].tolist():
        rows = table.rows(image)
        boxes = table.boxes_xywh[rows].copy()
        boxes[:, 2:] += boxes[:, :2]
        with open_image(read_file(root / table.file_names[image])) as opened:
            guesses = (_regions(model, opened, boxes, scale) @ texts.T).argmax(1).tolist()
        for label, guess in zip(table.category_index[rows].tolist(), guesses, strict=True):
            for group in ("all", table.categories[label].frequency):
                right.setdefault(group, []).append(guess == label)
    return {group: float(np.mean(hits)) for group, hits in right.items()}
