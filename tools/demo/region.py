"""A box of an image: what the teacher sees in it beside what the detector says there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou

from models.richsem.teacher import SemanticTargets
from models.richsem.vocabulary import ExtendedClassifier
from tools.demo.detector import Seen, used_columns
from util.boxes import box_xyxy_to_cxcywh
from util.errors import UserError
from util.pixels import Size

# A query says something of a box where the two overlap this much: the usual limit of a match.
MIN_IOU = 0.5
Box = tuple[float, float, float, float]
"""XYXY in pixels."""


@dataclass(frozen=True)
class QueryThere:
    """The query that speaks for a box, and their IoU."""

    index: int
    iou: float


def format_box(box: Box) -> str:
    """As `parse_box` reads it."""
    return ", ".join(f"{v:.1f}" for v in box)


def parse_box(text: str, size: Size) -> Box:
    """`x0, y0, x1, y1` in pixels of an image of `size` (height, width), cut at its edges.

    Raises UserError for anything else and for a box without area in the image.
    """
    try:
        x0, y0, x1, y1 = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise UserError(f"box {text!r}: write four numbers, x0, y0, x1, y1 in pixels") from None
    height, width = size
    x0, x1 = sorted(min(max(x, 0.0), width) for x in (x0, x1))
    y0, y1 = sorted(min(max(y, 0.0), height) for y in (y0, y1))
    if not (x1 - x0 >= 1 and y1 - y0 >= 1):  # False for NaN, too
        raise UserError(f"box {text!r}: has no area in the image of {width} x {height} pixels")
    return x0, y0, x1, y1


def detection_at(boxes_xyxy: np.ndarray, x: float, y: float) -> int | None:
    """The smallest of the boxes (N, 4) that the point lies in."""
    inside = (boxes_xyxy[:, :2] <= (x, y)).all(1) & (boxes_xyxy[:, 2:] >= (x, y)).all(1)
    areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1)
    return int(np.where(inside, areas, np.inf).argmin()) if inside.any() else None


def query_of_detection(seen: Seen, row: int) -> int:
    """The query that detection `row` of the prediction is of."""
    return query_at(seen, seen.prediction.boxes_xyxy[row], nearest=True).index


def query_at(seen: Seen, box: Box | np.ndarray, nearest: bool = False) -> QueryThere:
    """The query that speaks for a box: the most confident of those that match it, else the nearest.

    nearest: that with the largest IoU in any case.
    """
    ious = box_iou(torch.tensor(np.array(box, np.float32))[None], torch.from_numpy(seen.query_boxes_xyxy))[0]
    matching = ious >= MIN_IOU
    best = torch.from_numpy(seen.query_scores).amax(1).where(matching, torch.tensor(-1.0)).argmax()
    index = int(ious.argmax() if nearest or not matching.any() else best)
    return QueryThere(index, float(ious[index]))


def detector_scores(seen: Seen, query: int, count: int) -> dict[str, float]:
    """The highest `count` scores of a query, by word."""
    return _best(seen.names, seen.query_scores[query], count)


@torch.inference_mode()
def teacher_scores(view: SemanticTargets, seen: Seen, box: Box, count: int) -> dict[str, float]:
    """The `count` words most probable for a box to the teacher, of those that the detector was asked for."""
    height, width = seen.prediction.size
    boxes_xyxy = torch.tensor([box]) / torch.tensor([width, height, width, height])
    device = seen.model.device
    boxes_cxcywh = box_xyxy_to_cxcywh(boxes_xyxy).to(device)
    embedding = view.embed_boxes(boxes_cxcywh, torch.zeros(1, dtype=torch.int64, device=device))
    classifier: Any = seen.model.trained.model.head.classifier
    text = classifier if isinstance(classifier, ExtendedClassifier) else classifier.text
    logits = text.logits(embedding)[0, used_columns(seen.model)]
    return _best(seen.names, logits.softmax(0).cpu().numpy(), count)


def crop(pixels: np.ndarray, box: Box) -> np.ndarray:
    """The pixels (H, W, 3) of a box."""
    x0, y0, x1, y1 = box
    return pixels[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]


def _best(names: tuple[str, ...], scores: np.ndarray, count: int) -> dict[str, float]:
    order = np.argsort(-scores, kind="stable")[:count]
    return {names[i]: float(scores[i]) for i in order}
