"""Images with annotated boxes: LVIS v1, and COCO through the same columns."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from datasets.annotations.categories import ClassTable
from datasets.annotations.table import AnnotationTable
from datasets.augment.policy import Policy
from datasets.columns import offsets_of
from datasets.images.damaged import ALL_LEFT_OUT, ALL_REPLACED, LEFT_OUT, DamagedImages, first_readable
from datasets.images.folders import Images
from datasets.images.preprocess import ImageError
from datasets.images.turned import TurnedImages
from datasets.judged_classes import JudgedColumns
from datasets.sample import MIN_SIDE, Sample, SampleIndex, to_model_input
from datasets.sampling.samplers import class_repeat_factors, repeat_factors
from util.logging import get_logger
from util.structures import Target


class TrainingBoxes:
    """The boxes of a table to train on, in columns.

    Boxes are clipped to their images. Boxes without size, crowds, and boxes of classes that `classes` lacks
    or, without `rare`, of rare ones are dropped. What was clipped or has no size is counted and logged once.

    offsets: (I + 1,) int64.  boxes_xyxy: (M, 4) float32 pixels.  labels: (M,) int64 column of the class.
    """

    def __init__(self, annotations: AnnotationTable, classes: ClassTable, rare: bool = True) -> None:
        image = annotations.image_index
        sizes = annotations.sizes[image].astype(np.float64)
        # Unknown sizes do not clip.
        limits = np.where(sizes > 0, sizes, np.inf)[:, [1, 0, 1, 0]]
        corners = annotations.boxes_xywh.copy()
        corners[:, 2:] += corners[:, :2]
        clipped = np.clip(corners, 0, limits)
        with np.errstate(invalid="ignore"):
            # A number like 1e400 is infinite, and no edge of anything.
            sized = np.isfinite(corners).all(1) & ((clipped[:, 2:] - clipped[:, :2]) >= MIN_SIDE).all(1)
            outside = (np.abs(clipped - corners) > 1).any(1) & sized
        labels = classes.columns_of(annotations.categories)[annotations.category_index]
        keep = sized & ~annotations.crowd & (labels >= 0)
        if not rare:
            is_rare = np.array([c.frequency == "r" for c in annotations.categories])
            keep &= ~is_rare[annotations.category_index]
        _report(annotations, outside, "reach outside their image and are clipped")
        _report(annotations, ~sized, "have no size inside their image and are dropped")
        self.offsets = offsets_of(np.bincount(image[keep], minlength=len(annotations)))
        self.boxes_xyxy = clipped[keep].astype(np.float32)
        self.labels = labels[keep]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, image_index: int) -> slice:
        """The rows of image 0..I-1."""
        return slice(int(self.offsets[image_index]), int(self.offsets[image_index + 1]))

    @property
    def image_index(self) -> np.ndarray:
        """(M,) int64."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def class_factors(self, num_classes: int, threshold: float) -> np.ndarray:
        """(num_classes,) repeat factors, see `class_repeat_factors`."""
        return class_repeat_factors(
            self.image_index,
            self.labels,
            num_images=len(self.offsets) - 1,
            num_classes=num_classes,
            threshold=threshold,
        )

    def image_factors(self, threshold: float) -> np.ndarray:
        """(I,) repeat factors, see `repeat_factors`."""
        return repeat_factors(
            self.image_index,
            self.labels,
            num_images=len(self.offsets) - 1,
            num_classes=int(self.labels.max()) + 1,
            threshold=threshold,
        )


class DetectionDataset(Dataset):
    """Images with boxes.

    annotations: the store.
    images:    where they are read from.
    classes:     the columns of the model; boxes of classes it lacks are skipped.
    policy:      augmentation or evaluation resize.
    seed:        of the run; with a SampleIndex it fixes every random number.
    rare:        False skips boxes of rare classes (open-vocabulary LVIS).
    evaluation:  True: a damaged image is named, counted and left out. Otherwise another one is drawn in its
                 place.
    max_damaged_share: more damaged images than this are an error.
    draft:       JPEGs are decoded at the scale that their first resize needs.
    judged:      the classes that were looked for in each image; None where the loss does not ask.
    """

    def __init__(
        self,
        annotations: AnnotationTable,
        images: Images,
        classes: ClassTable,
        policy: Policy,
        *,
        seed: int = 0,
        rare: bool = True,
        evaluation: bool = False,
        max_damaged_share: float = 1.0,
        draft: bool = False,
        judged: JudgedColumns | None = None,
    ) -> None:
        self.annotations = annotations
        self.images = images
        self.boxes = TrainingBoxes(annotations, classes, rare)
        self.policy = policy
        self.seed = seed
        self.evaluation = evaluation
        self.draft = draft
        self.judged = judged
        self.damaged = DamagedImages(len(annotations), annotations.name, max_damaged_share)
        names = (annotations.file_names[i] for i in range(len(self)))
        self.damaged.add_missing(names, images, ALL_LEFT_OUT if evaluation else ALL_REPLACED)
        self.turned = TurnedImages(annotations.name, annotations.file_names)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: SampleIndex) -> tuple[Tensor, Target] | None:
        """The image (3, H, W) uint8 and its Target; None for a damaged one in evaluation.

        Raises UserError where too many are damaged.
        """
        rng = index.generator(self.seed)
        found = self._readable(index.image_index, rng)
        if found is None:
            return None
        image, (sample, original_size) = found
        file = self.annotations.file_names[image]
        judged = None if self.judged is None else self.judged.of(image)
        image_id = self.annotations.image_ids[image]
        return to_model_input(sample, image_id, original_size, files=(file,), judged=judged)

    def report(self) -> None:
        """Logs once how the images with an EXIF orientation, of those met so far, were read."""
        self.turned.report()

    def damaged_names(self) -> list[str]:
        """File names of the images met so far that are damaged."""
        return [self.annotations.file_names[i] for i in self.damaged.damaged()]

    def missing_names(self) -> list[str]:
        """File names of the images that are missing."""
        return [self.annotations.file_names[i] for i in self.damaged.missing()]

    def damaged_ids(self) -> list[int]:
        """Ids of both."""
        return self.annotations.image_ids[sorted(self.damaged.damaged() + self.damaged.missing())].tolist()

    def _readable(
        self, image: int, rng: np.random.Generator
    ) -> tuple[int, tuple[Sample, tuple[int, int]]] | None:
        """The image, or the one in its place, and what `augmented` makes of it."""
        if self.evaluation:
            try:
                found = self.augmented(image, rng)
            except ImageError as error:
                self.damaged.add(image, error, LEFT_OUT)
                return None
            self.damaged.read(image)
            return image, found
        return first_readable(lambda i: self.augmented(i, rng), image, len(self), rng, self.damaged)

    def augmented(self, index: int, rng: np.random.Generator) -> tuple[Sample, tuple[int, int]]:
        """Image 0..I-1 after the policy, and its (height, width) in the file. Raises ImageError."""
        name, size = self.annotations.file_names[index], self.annotations.size(index)
        encoded = self.images.open(name, size)
        self.turned.add(index, encoded)
        params = self.policy.make_params(encoded.size, rng)
        image = encoded.decode(params.decode_size if self.draft else None)
        rows = self.boxes.rows(index)
        # Copies: torch must not alias memory that may be read-only.
        boxes, labels = self.boxes.boxes_xyxy[rows].copy(), self.boxes.labels[rows].copy()
        try:
            return params(Sample.from_arrays(image, boxes, labels, encoded.size)), encoded.size
        except ImageError as error:
            raise ImageError(f"{encoded.label}: {error}") from None


def _report(annotations: AnnotationTable, affected: np.ndarray, what: str) -> None:
    count = int(np.count_nonzero(affected))
    if count:
        first = annotations.annotation_ids[np.flatnonzero(affected)[0]]
        get_logger().warning("%s: %d boxes %s (first: annotation %d)", annotations.name, count, what, first)
