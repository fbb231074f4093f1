"""Images with the same content, in several parts of the data or twice in one."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torchvision.ops import box_iou

from tools.data_doctor.findings import Finding, Severity, found
from tools.data_doctor.part import Part

NOTE, WARNING, ERROR = Severity
# Boxes of this IoU are drawn around the same thing.
_SAME = 0.5

ClassKey = Callable[[str, str], str]
"""(data set, name of a class there) -> what it is called in all sets."""
Labels = Mapping[str, np.ndarray]
"""Class -> (n, 4) boxes XYWH in pixels."""


class Copy(NamedTuple):
    """An image. part: a number.  name: its file's."""

    part: int
    name: str


def check_copies(parts: Sequence[Part], class_key: ClassKey) -> Iterator[Finding]:
    """Images that are in training and in validation, and copies that are labelled differently.

    class_key: the same for classes of different sets that are one.
    """
    leaks: dict[tuple[int, int], list[str]] = defaultdict(list)
    contradictions: dict[tuple[int, int], list[str]] = defaultdict(list)
    agreeing: dict[tuple[int, int], list[str]] = defaultdict(list)
    for copies in find_copies(parts):
        for first, other in _pairs(copies):
            a, b = parts[first.part], parts[other.part]
            key = first.part, other.part
            if a.is_validation != b.is_validation:
                # The one in training is to go.
                one, two = (other, first) if a.is_validation else (first, other)
                leaks[one.part, two.part].append(f"{one.name} is {two.name}")
            elif not (a.is_image_level or b.is_image_level):
                differ = _differences(a, first.name, b, other.name, class_key)
                copy = f"{first.name} and {other.name}"
                contradictions[key].extend([f"{copy}: {differ}"] if differ else [])
                agreeing[key].extend([] if differ else [copy])
    for key, examples in leaks.items():
        yield from found(ERROR, _where(parts, *key),
                         "{n} images are in both, so the metrics say nothing about new images", examples,
                         f"remove them from {parts[key[0]].name}")  # fmt: skip
    for key, examples in contradictions.items():
        yield from found(WARNING, _where(parts, *key),
                         "{n} images have the same content as another but other labels", examples,
                         "keep one of each, with all boxes: what one lacks it teaches as absent")  # fmt: skip
    for key, examples in agreeing.items():
        yield from found(NOTE, _where(parts, *key),
                         "{n} images have the same content as another and the same labels", examples,
                         "they count twice")  # fmt: skip


def find_copies(parts: Sequence[Part]) -> list[list[Copy]]:
    """The images of which there are several, wherever they are. Only those that may be alike are read."""
    likely: dict[bytes, set[Copy]] = defaultdict(set)
    for number, part in enumerate(parts):
        for check in part.images.checks if part.images is not None else ():
            if check.digest:
                likely[check.digest].add(Copy(number, check.name))
    same: dict[bytes, list[Copy]] = defaultdict(list)
    for copies in likely.values():
        if len(copies) > 1:
            for copy in sorted(copies):
                if digest := _digest(parts[copy.part], copy.name):
                    same[digest].append(copy)
    return [copies for copies in same.values() if len(copies) > 1]


def _pairs(copies: Sequence[Copy]) -> Iterator[tuple[Copy, Copy]]:
    """Each copy with the first one of every part; within a part, with its first one."""
    first: dict[int, Copy] = {}
    for copy in copies:
        for other in first.values():
            yield other, copy
        first.setdefault(copy.part, copy)


def _where(parts: Sequence[Part], one: int, two: int) -> str:
    return parts[one].name if one == two else f"{parts[one].name}, {parts[two].name}"


def _digest(part: Part, name: str) -> bytes:
    """Of all of a file's content; b"" where it cannot be read any more."""
    content = None if part.images is None else part.images.files.find(name)
    try:
        return b"" if content is None else hashlib.blake2b(content.read(), digest_size=16).digest()
    except OSError:
        return b""


def _differences(a: Part, name: str, b: Part, other: str, class_key: ClassKey) -> str:
    """What two copies of an image contradict each other in, "" where in nothing.

    Where one of them was not searched for a class, the boxes of the other one do not count.
    """
    one, two = (
        {class_key(part.set_name, c): boxes for c, boxes in part.labels(file).items()}
        for part, file in ((a, name), (b, other))
    )
    judged = [
        {class_key(part.set_name, c) for c in part.judged(file)} for part, file in ((a, name), (b, other))
    ]
    differ = []
    for key in sorted((one.keys() | two.keys()) & judged[0] & judged[1]):
        boxes = [labels.get(key, np.zeros((0, 4))) for labels in (one, two)]
        if len(boxes[0]) != len(boxes[1]):
            differ.append(f"{key} {len(boxes[0])} and {len(boxes[1])} boxes")
        elif not _same_boxes(*boxes):
            differ.append(f"{key} elsewhere")
    return ", ".join(differ)


def _same_boxes(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether each box of one image has one like it in the other."""
    corners = [torch.from_numpy(np.concatenate((x[:, :2], x[:, :2] + x[:, 2:]), 1)) for x in (a, b)]
    iou = box_iou(*corners).numpy()
    return bool((iou.max(1) >= _SAME).all() and (iou.max(0) >= _SAME).all())
