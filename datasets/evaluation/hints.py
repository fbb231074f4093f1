"""Why an evaluation comes out near 0: what predictions would match if they were read differently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from datasets.annotations.table import AnnotationTable
from datasets.evaluation.box_forms import AS_IT_SHOULD_BE, BoxForm, scaled_forms, unscaled_forms
from datasets.evaluation.grouping import index_of, rank_within_group
from datasets.evaluation.overlap import edges_of, expand_pairs, overlapping
from datasets.evaluation.predictions import Predictions

# An AP50 below this may be a mistake in a file, and not the model's.
NEAR_ZERO = 0.01
_IOU = 0.5
# So many images are looked at.
_IMAGES = 300
# A reading explains something if so large a share of the boxes fits then, and so many times that of now.
_SHARE, _TIMES = 0.25, 3
# COCO's ids, 1..90, leave these out; many programs count its 80 classes without gaps.
_COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
_COCO_IDS = np.array([i for i in range(1, 91) if i not in _COCO_GAPS])
# Classes that are named as examples.
_NAMED = 3

Look = Callable[[np.ndarray], np.ndarray]
"""(n,) ids of predictions -> (n,) index of the image or category meant, -1: none."""


def is_near_zero(metrics: Mapping[str, float], predictions: Predictions) -> bool:
    """Whether predictions match next to nothing although there is something to match."""
    return len(predictions) > 0 and 0 <= metrics.get("AP50", -1) < NEAR_ZERO


def hints(annotations: AnnotationTable, predictions: Predictions) -> list[str]:
    """What may be wrong with predictions, a sentence each; empty where nothing that is known explains it.

    A sample of the images is matched under each way of reading the predictions: other box forms and sizes,
    other image ids, other category ids. The evaluation itself never uses any of them.
    """
    if not len(predictions) or not len(annotations.boxes_xywh):
        return []
    sample = _Sample.draw(annotations, predictions)
    image, form, fits, before = _best_reading(sample)
    lines = []
    if _explains(fits.share, before):
        change = f"{fits.share:.0%} of the best boxes fit annotated ones then, {before:.0%} as they are"
        if image.name:
            lines.append(f"the image ids are {image.name}: {image.fix} ({change})")
        if form.name:
            lines.append(f"the boxes are {form.name}: {form.fix} ({change})")
    elif before < _SHARE:
        lines += _unknown_images(annotations, predictions)
    lines += _class_hints(annotations, sample, fits)
    return lines + list(_other_hints(annotations, predictions))


class _Reading(NamedTuple):
    """A way to read ids. name: "" for the right one."""

    name: str
    fix: str
    look: Look


@dataclass(frozen=True)
class _Fits:
    """rows: (k,) of the sample that fit an annotated box.  target: (k,) its category, 0..K-1.
    share: of the boxes that were looked at.  overlap: their IoUs, summed up, over the same number."""

    rows: np.ndarray
    target: np.ndarray
    share: float
    overlap: float


@dataclass(frozen=True)
class _Sample:
    """The predictions of some images, by image, best first. rank: (n,) 0 for the best of its image."""

    annotations: AnnotationTable
    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    rank: np.ndarray

    @classmethod
    def draw(cls, annotations: AnnotationTable, predictions: Predictions) -> _Sample:
        ids = np.unique(predictions.image_ids)
        chosen = ids[:: max(1, len(ids) // _IMAGES)][:_IMAGES]
        rows = np.flatnonzero(np.isin(predictions.image_ids, chosen))
        rows = rows[np.lexsort((-predictions.scores[rows], predictions.image_ids[rows]))]
        image_ids = predictions.image_ids[rows]
        rank = rank_within_group(image_ids)
        most = int(np.diff(annotations.box_offsets).max())
        rows, image_ids, rank = rows[rank < most], image_ids[rank < most], rank[rank < most]
        boxes = predictions.boxes_xywh(rows)
        return cls(annotations, image_ids, predictions.category_ids[rows], boxes, rank)

    def fits(self, images: Look, form: BoxForm) -> _Fits:
        """As many of the best boxes of each image as are annotated there, read in some way."""
        table = self.annotations
        index = images(self.image_ids)
        counts = np.where(index >= 0, np.diff(table.box_offsets)[index], 0)
        # An image that is not known could have one box.
        looked_at = self.rank < np.where(index >= 0, counts, 1)
        rows = np.flatnonzero(looked_at & (counts > 0))
        if not len(rows):
            return _Fits(rows, rows, 0.0, 0.0)
        boxes = form.convert(self.boxes[rows], table.sizes[index[rows]].astype(np.float64))
        dt, gt = expand_pairs(table.box_offsets[index[rows]], counts[rows], slice(0, len(rows)))
        with np.errstate(all="ignore"):  # a wrong reading may give any numbers
            no_crowd = np.zeros(len(table.boxes_xywh), bool)
            dt, gt, iou = overlapping(edges_of(boxes), edges_of(table.boxes_xywh), dt, gt, no_crowd)
        order = np.lexsort((-iou, dt))
        order = order[(iou[order] >= _IOU) & (rank_within_group(dt[order]) == 0)]
        number, target = np.count_nonzero(looked_at), table.category_index[gt[order]].astype(np.int64)
        return _Fits(rows[dt[order]], target, len(order) / number, float(iou[order].sum()) / number)


def _best_reading(sample: _Sample) -> tuple[_Reading, BoxForm, _Fits, float]:
    """The reading with which most boxes fit, and their share as they are."""
    images = _image_readings(sample.annotations)
    right = sample.fits(images[0].look, AS_IT_SHOULD_BE)
    best = images[0], AS_IT_SHOULD_BE, right
    farthest = float(np.max(sample.boxes, initial=0.0, where=np.isfinite(sample.boxes)))
    # Sizes are tried only where nothing simpler explains it.
    for forms in (list(unscaled_forms()), list(scaled_forms(farthest))):
        if right.share >= _SHARE or _explains(best[2].share, right.share):
            break
        for image in images:
            for form in forms:
                found = sample.fits(image.look, form)
                # A simpler reading stands unless another one is clearly better.
                if found.overlap > best[2].overlap * 1.02 + 0.005:
                    best = image, form, found
    return *best, right.share


def _explains(share: float, before: float) -> bool:
    return share >= _SHARE and share >= _TIMES * before


def _image_readings(annotations: AnnotationTable) -> list[_Reading]:
    ids, count = annotations.image_ids, len(annotations)
    return [
        _Reading("", "", lambda p: index_of(ids, p)),
        _Reading("one too small", "add 1 to each image_id", lambda p: index_of(ids, p + 1)),
        _Reading("one too large", "subtract 1 from each image_id", lambda p: index_of(ids, p - 1)),
        _Reading(
            "positions in the list of images, from 0", "write the ids of the annotation file",
            lambda p: np.where((p >= 0) & (p < count), p, -1),
        ),
    ]  # fmt: skip


def _category_readings(annotations: AnnotationTable) -> list[_Reading]:
    ids, count = annotations.category_ids, len(annotations.categories)

    def position(p: np.ndarray) -> np.ndarray:
        return np.where((p >= 0) & (p < count), p, -1)

    def of_coco(p: np.ndarray) -> np.ndarray:
        return position(index_of(_COCO_IDS, p)) if count == len(_COCO_IDS) else np.full(len(p), -1)

    write = "write the ids of the annotation file"
    return [
        _Reading("", "", lambda p: index_of(ids, p)),
        _Reading("one too small (counted from 0?)", "add 1 to each category_id",
                 lambda p: index_of(ids, p + 1)),
        _Reading("one too large (counted from 1?)", "subtract 1 from each category_id",
                 lambda p: index_of(ids, p - 1)),
        _Reading("positions in the list of classes, from 0", write, position),
        _Reading("positions in the list of classes, from 1", write, lambda p: position(p - 1)),
        _Reading("COCO's own, 1..90 with gaps, and the annotations count 80 classes", write, of_coco),
    ]  # fmt: skip


def _class_hints(annotations: AnnotationTable, sample: _Sample, fits: _Fits) -> Iterator[str]:
    """What is wrong with the classes of the boxes that fit."""
    if fits.share < _SHARE or len(annotations.categories) < 2:
        return
    predicted = sample.category_ids[fits.rows]
    readings = _category_readings(annotations)
    shares = [float((reading.look(predicted) == fits.target).mean()) for reading in readings]
    best = int(np.argmax(shares))
    before = shares[0]
    if _explains(shares[best], before):
        yield (
            f"the category ids are {readings[best].name}: {readings[best].fix} ({shares[best]:.0%} of the "
            f"boxes that fit have their class then, {before:.0%} as they are)"
        )
    elif before < _SHARE:
        yield from _exchanged_classes(annotations, predicted, fits.target, before)


def _exchanged_classes(
    annotations: AnnotationTable, predicted: np.ndarray, target: np.ndarray, before: float
) -> Iterator[str]:
    """Where each category id stands for another class than the annotations say."""
    pairs, counts = np.unique(np.stack([predicted, target]), axis=1, return_counts=True)
    order = np.lexsort((-counts, pairs[0]))
    main = order[rank_within_group(pairs[0, order]) == 0]
    share = counts[main].sum() / len(predicted)
    if share < 2 / 3 or len(np.unique(pairs[1, main])) < 2:
        yield (
            f"boxes fit annotated ones, but only {before:.0%} of them have their class: were the classes in "
            "another order when the model was trained?"
        )
        return
    most = main[np.argsort(-counts[main], kind="stable")][:_NAMED]
    named = ", ".join(
        f"{category_id} is {annotations.categories[index].name!r}" for category_id, index in pairs[:, most].T
    )
    yield (
        f"the category ids are those of another list of classes, by what the boxes show: {named} "
        f"({share:.0%} of the boxes that fit agree with one such list, {before:.0%} with the annotations')"
    )


def _unknown_images(annotations: AnnotationTable, predictions: Predictions) -> Iterator[str]:
    known = np.isin(predictions.image_ids, annotations.image_ids)
    if not known.any():
        yield (
            f"no prediction is of an image of {annotations.name}: its ids are {annotations.image_ids[0]} .. "
            f"{annotations.image_ids[-1]}, those of the predictions {predictions.image_ids.min()} .. "
            f"{predictions.image_ids.max()}; is it the file that was predicted on?"
        )


def _other_hints(annotations: AnnotationTable, predictions: Predictions) -> Iterator[str]:
    """What no other reading is needed for."""
    classes, boxed = np.unique(predictions.category_ids), np.unique(annotations.category_index)
    if len(classes) == 1 and len(boxed) > 1:
        yield (
            f"all predictions are of category_id {classes[0]}, the annotations have boxes of {len(boxed)} "
            "classes"
        )
    elif not np.isin(classes, annotations.category_ids).any():
        yield (
            f"no category_id is one of the annotations': they have {annotations.category_ids[0]} .. "
            f"{annotations.category_ids[-1]}, the predictions {classes[0]} .. {classes[-1]}"
        )
    highest = float(predictions.scores.max())
    if highest > 1:
        yield f"scores reach {highest:g}: are they per cent? (AP does not mind, thresholds do)"
    if len(predictions) > 1 and highest == float(predictions.scores.min()):
        yield f"all scores are {highest:g}, so that AP depends on the order of the predictions"
    evaluated = len(np.intersect1d(predictions.image_ids, annotations.image_ids))
    if 0 < evaluated < len(annotations) / 2:
        yield f"only {evaluated} of {len(annotations)} images have predictions"
