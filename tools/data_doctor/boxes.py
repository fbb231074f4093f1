"""Checks of the boxes against their images and one another."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from datasets.annotations.source import RawAnnotations
from datasets.sample import MIN_SIDE
from tools.data_doctor.findings import Finding, Severity, found

NOTE, WARNING, ERROR = Severity
# Annotation tools round; a box may reach so many pixels beyond its image without a word.
_ROUNDING = 1.0
# Sides of a box that a detector hardly sees, and the area of it that covers its image, as a share.
_TINY, _WHOLE = 2.0, 0.95
# What all boxes have in common is a pattern from so many on, and from so large a share on.
_FEWEST, _MOST = 20, 0.5
# Examples of what concerns all boxes.
_EXAMPLES = 100
# So many boxes may break a pattern of all others.
_STRAY = 0.01


def check_boxes(where: str, raw: RawAnnotations, sizes: np.ndarray) -> Iterator[Finding]:
    """sizes: (I, 2) height and width of the images as they are read, 0 if unknown."""
    if not len(raw.boxes_xywh):
        # What is wrong with the entries explains it otherwise.
        if not raw.faults:
            yield Finding(ERROR, where, "there are no boxes", "is it the right file?")
        return
    boxes = _Boxes.of(raw, sizes)
    pattern = list(_misread(where, boxes))
    yield from pattern
    yield from _check_each(where, boxes, misread=bool(pattern))
    yield from _check_patterns(where, boxes)


@dataclass(frozen=True)
class _Boxes:
    """image: (N,) 0..I-1, -1: not listed.  xywh: (N, 4) pixels.  sizes: (N, 2) width, height of the image,
    infinite if unknown.  finite, sized: (N,) without NaN; and with an area."""

    raw: RawAnnotations
    image: np.ndarray
    xywh: np.ndarray
    sizes: np.ndarray
    finite: np.ndarray
    sized: np.ndarray

    @classmethod
    def of(cls, raw: RawAnnotations, sizes: np.ndarray) -> "_Boxes":
        image = _rows_of(raw.image_ids, raw.box_image_ids)
        of_box = np.where(image[:, None] >= 0, np.vstack((sizes, np.zeros((1, 2))))[image], 0)[:, ::-1]
        xywh = raw.boxes_xywh
        finite = np.isfinite(xywh).all(1)
        sized = finite & (xywh[:, 2:] > 0).all(1)
        return cls(raw, image, xywh, np.where(of_box > 0, of_box, np.inf), finite, sized)

    def named(
        self, chosen: np.ndarray, measure: np.ndarray | None = None, most: int | None = None
    ) -> list[str]:
        """Where each of the chosen boxes is written, what it says, and how large its image is.

        measure: (N,) how badly each is affected; the worst come first.  most: names no more.
        """
        rows = np.flatnonzero(chosen)
        if measure is not None:
            rows = rows[np.argsort(-measure[rows], kind="stable")]
        classes = {c.id: c.name for c in self.raw.categories}
        return [self._name(row, classes) for row in rows[:most].tolist()]

    def _name(self, row: int, classes: dict[int, str]) -> str:
        identity = int(self.raw.box_category_ids[row])
        file = f" of {self.raw.file_names[self.image[row]]}" if self.image[row] >= 0 else ""
        numbers = ", ".join(f"{v:.6g}" for v in self.xywh[row])
        width, height = self.sizes[row]
        size = f" in {width:.0f}x{height:.0f}" if np.isfinite(width) else ""
        where = self.raw.place_of_box(row)
        return f"{where}{file}: {classes.get(identity, identity)} [{numbers}]{size}"


def _check_each(where: str, boxes: _Boxes, misread: bool) -> Iterator[Finding]:
    """misread: the boxes seem to be of another form, which explains those outside."""
    x, y, w, h = boxes.xywh.T
    width, height = boxes.sizes.T
    yield from found(WARNING, where, "{n} boxes contain NaN or infinity", boxes.named(~boxes.finite),
                     "training skips them and evaluation cannot match them: remove them")  # fmt: skip
    yield from found(WARNING, where, "{n} boxes have no width or height",
                     boxes.named(boxes.finite & ~boxes.sized),
                     "training skips them: remove them or draw them again")  # fmt: skip
    if misread:
        return
    with np.errstate(invalid="ignore"):
        beyond = np.maximum.reduce([-x, -y, x + w - width, y + h - height])
        inside = (np.minimum(x + w, width) - np.maximum(x, 0) >= MIN_SIDE) & (
            np.minimum(y + h, height) - np.maximum(y, 0) >= MIN_SIDE
        )
        away = boxes.sized & ~inside & (beyond > 0)
        over = boxes.sized & (beyond > _ROUNDING) & ~away
    yield from found(WARNING, where, "{n} boxes lie outside their image", boxes.named(away, beyond),
                     "training skips them: do they belong to another image?")  # fmt: skip
    many = "; so many: were the images resized?" if np.count_nonzero(over) > 0.1 * len(x) else ""
    yield from found(WARNING, where, "{n} boxes reach beyond their image", boxes.named(over, beyond),
                     f"training clips them{many}")  # fmt: skip
    small = boxes.sized & ~away & (np.minimum(w, h) < _TINY)
    severity = WARNING if np.count_nonzero(small) > 0.05 * len(x) else NOTE
    yield from found(
        severity, where, f"{{n}} boxes are less than {_TINY:g} pixels wide or high",
        boxes.named(small, -np.minimum(w, h)), "no detector finds them: are they specks, or in other units?",
    )  # fmt: skip


def _misread(where: str, boxes: _Boxes) -> Iterator[Finding]:
    """Boxes that fit their images only in another form."""
    good = boxes.sized & np.isfinite(boxes.sizes).all(1)
    if np.count_nonzero(good) < _FEWEST:
        return
    xywh, sizes = boxes.xywh[good], boxes.sizes[good]
    ends = xywh[:, :2] + xywh[:, 2:]
    if _nearly_all(ends.max(1) <= 1 + 1e-3) and _nearly_all(sizes.min(1) >= 8):
        yield Finding(ERROR, where, f"all {len(xywh):,} boxes lie between 0 and 1",
                      "they are fractions of the image: multiply them by its width and height",
                      boxes.named(good, most=_EXAMPLES), cases=len(xywh))  # fmt: skip
        return
    outside = (ends > sizes + _ROUNDING).any(1) | (xywh[:, :2] < -_ROUNDING).any(1)
    centred = np.concatenate((xywh[:, :2] + xywh[:, 2:] / 2, xywh[:, 2:]), 1)
    for numbers, words in ((xywh, "x1 y1 x2 y2"), (centred, "x1 y1 x2 y2 instead of centre and size")):
        corners = (numbers[:, :2] >= -_ROUNDING).all(1) & (numbers[:, 2:] > numbers[:, :2]).all(1)
        corners &= (numbers[:, 2:] <= sizes + _ROUNDING).all(1)
        if outside.mean() > 0.05 and _nearly_all(corners):
            beyond = (ends - sizes).max(1)
            chosen, measure = np.zeros((2, len(good)))
            chosen[good], measure[good] = outside, beyond
            yield Finding(ERROR, where, f"{np.count_nonzero(outside):,} of {len(xywh):,} boxes reach beyond "
                          f"their image; as {words} they all fit",
                          "convert them: the third and fourth numbers are width and height",
                          boxes.named(chosen > 0, measure, _EXAMPLES), cases=len(xywh))  # fmt: skip
            return


def _check_patterns(where: str, boxes: _Boxes) -> Iterator[Finding]:
    """What no annotator draws: one box everywhere, boxes as large as their images, boxes twice."""
    columns = (*boxes.xywh.T, boxes.raw.box_category_ids, boxes.image)
    order = np.lexsort(columns)
    again = np.zeros(len(order), bool)
    again[order[1:]] = np.logical_and.reduce([c[order[1:]] == c[order[:-1]] for c in columns])
    again &= boxes.image >= 0
    yield from found(WARNING, where, "{n} boxes are there twice: same image, class and place",
                     boxes.named(again), "remove one of each: both are trained on and evaluated")  # fmt: skip
    good = boxes.sized & np.isfinite(boxes.sizes).all(1)
    number = np.count_nonzero(good)
    if number < _FEWEST:
        return
    shares = boxes.xywh[good] / np.tile(boxes.sizes[good], 2)
    whole = shares[:, 2:].clip(max=1).prod(1) >= _WHOLE
    images = len(np.unique(boxes.image[good]))
    covered = len(np.unique(boxes.image[good][whole]))
    if covered > _MOST * images:
        yield Finding(WARNING, where, f"a box covers all of its image in {covered:,} of {images:,} images",
                      "a detector learns no places from them: were labels of images exported as boxes? "
                      "Give such images as image-level data")  # fmt: skip
    keys = (shares.clip(-1, 2) * 1000).round().astype(np.int64) @ (4096 ** np.arange(4))
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    most = int(counts.argmax())
    shape = shares[first[most]].round(3)
    if counts[most] > _MOST * number and shape[2:].prod() < _WHOLE:
        box = ", ".join(f"{v:g}" for v in shape)
        yield Finding(WARNING, where, f"{counts[most]:,} of {number:,} boxes are the same: [{box}] of their "
                      "image's width and height", "no annotator draws that: look at the export")  # fmt: skip


def _nearly_all(mask: np.ndarray) -> bool:
    return bool(mask.mean() >= 1 - _STRAY)


def _rows_of(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(n,) the first row of `ids` that is each wanted one, -1: none."""
    if not len(ids):
        return np.full(len(wanted), -1)
    order = np.argsort(ids, kind="stable")
    row = order[np.searchsorted(ids, wanted, sorter=order).clip(max=len(order) - 1)]
    return np.where(ids[row] == wanted, row, -1)
