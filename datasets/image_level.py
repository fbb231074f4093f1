"""Images with a label and no boxes (ImageNet-LVIS): the whole image is one coarse box."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.annotations.categories import Category, ClassTable
from datasets.annotations.category_matching import Matches, match_categories, nearest_class
from datasets.annotations.table import AnnotationTable
from datasets.augment.mosaic import Mosaic
from datasets.augment.policy import Policy, whole_image_box
from datasets.images.damaged import ALL_REPLACED, DamagedImages, first_readable
from datasets.images.folders import Images
from datasets.images.preprocess import ImageError
from datasets.images.turned import TurnedImages
from datasets.sample import Sample, SampleIndex, to_model_input
from util.errors import UserError, listed
from util.logging import get_logger
from util.structures import Target

# At most so many unmatched classes are listed.
MOST_NAMED = 20


class ImageLevel(Dataset):
    """Images with one label each, alone or in mosaics of four.

    annotations: the store of `imagenet_lvis_image_info.json`; the first of `pos_category_ids` is the label.
    images:    where they are read from.
    classes:     the columns of the model.
    categories:  of the box-annotated file. The image-level file's own categories are matched to them by name,
                 synset or synonym, so their ids need not agree.
    policy:      the augmentation of each image, before the mosaic.
    mosaic:      None shows images alone.
    class_factors: (C,) how often images of each class come beside others, in the order and in mosaics; None
                 for all alike.
    seed:        of the run.
    max_damaged_share: more damaged images than this are an error.
    draft:       JPEGs are decoded at the scale that their first resize needs.

    Images without a label, or of a class that matches nothing, are skipped, counted and logged.
    """

    def __init__(
        self,
        annotations: AnnotationTable,
        images: Images,
        classes: ClassTable,
        categories: tuple[Category, ...],
        policy: Policy,
        *,
        mosaic: Mosaic | None = None,
        class_factors: np.ndarray | None = None,
        seed: int = 0,
        max_damaged_share: float = 1.0,
        draft: bool = False,
    ) -> None:
        self.annotations = annotations
        self.images = images
        self.policy = policy
        self.mosaic = mosaic
        self.seed = seed
        self.draft = draft
        labels = _image_labels(annotations, classes, categories)
        self.used = np.flatnonzero(labels >= 0)
        self.labels = labels[self.used]
        if not len(self.used):
            raise UserError(
                f"{annotations.name}: none of its {len(annotations)} images has a class of the model"
            )
        self.factors = None if class_factors is None else class_factors[self.labels]
        self._ends = None if self.factors is None else np.cumsum(self.factors)
        self.damaged = DamagedImages(len(self.used), annotations.name, max_damaged_share)
        names = (annotations.file_names[i] for i in self.used.tolist())
        self.damaged.add_missing(names, images, ALL_REPLACED)
        self.turned = TurnedImages(annotations.name, annotations.file_names)

    def __len__(self) -> int:
        return len(self.used)

    def __getitem__(self, index: SampleIndex) -> tuple[Tensor, Target]:
        """The image or mosaic (3, H, W) uint8 and its Target with `image_level` set."""
        rng = index.generator(self.seed)
        image, sample = self._readable(index.image_index, rng)
        image_id = self.annotations.image_ids[self.used[image]]
        shown = [image]
        if self.mosaic is not None:
            partners = [self._readable(int(i), rng) for i in self._drawn(3, rng)]
            shown += [partner for partner, _ in partners]
            sample = self.mosaic([sample, *(partner for _, partner in partners)], rng)
        files = tuple(self.annotations.file_names[self.used[i]] for i in shown)
        return to_model_input(sample, image_id, sample.size, image_level=True, files=files)

    @property
    def canvas(self) -> tuple[int, int] | None:
        """(height, width) of every image, None where they differ."""
        return None if self.mosaic is None else (self.mosaic.size, self.mosaic.size)

    def images_of_class(self, names: Sequence[str]) -> dict[str, int]:
        """The number of images of each class. names: of the columns."""
        return _count_by_name(self.labels, names)

    def report(self) -> None:
        """Logs once how the images with an EXIF orientation, of those met so far, were read."""
        self.turned.report()

    def damaged_names(self) -> list[str]:
        """File names of the images met so far that are damaged."""
        return [self.annotations.file_names[self.used[i]] for i in self.damaged.damaged()]

    def missing_names(self) -> list[str]:
        """File names of the images that are missing."""
        return [self.annotations.file_names[self.used[i]] for i in self.damaged.missing()]

    def _drawn(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count,) images by their factors."""
        if self._ends is None:
            return rng.integers(len(self), size=count)
        places = rng.random(count) * self._ends[-1]
        return np.searchsorted(self._ends, places, side="right").clip(max=len(self) - 1)

    def _readable(self, index: int, rng: np.random.Generator) -> tuple[int, Sample]:
        """The image, or the one in its place, and what `augmented` makes of it."""
        return first_readable(lambda i: self.augmented(i, rng), index, len(self), rng, self.damaged)

    def augmented(self, index: int, rng: np.random.Generator, policy: Policy | None = None) -> Sample:
        """Image 0..len-1 after the policy (its own, or another), with its coarse box. Raises ImageError."""
        image = int(self.used[index])
        encoded = self.images.open(self.annotations.file_names[image])
        self.turned.add(image, encoded)
        params = (policy or self.policy).make_params(encoded.size, rng)
        pixels = encoded.decode(params.decode_size if self.draft else None)
        box = whole_image_box(encoded.size)
        try:
            return params(Sample.from_arrays(pixels, box, torch.tensor([self.labels[index]]), encoded.size))
        except ImageError as error:
            raise ImageError(f"{encoded.label}: {error}") from None


def image_labels_count(
    annotations: AnnotationTable, classes: ClassTable, categories: tuple[Category, ...]
) -> dict[str, int]:
    """Class name -> images that `ImageLevel` would show of it."""
    labels = _image_labels(annotations, classes, categories)
    return _count_by_name(labels[labels >= 0], classes.names)


def _count_by_name(labels: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    return dict(zip(names, np.bincount(labels, minlength=len(names)).tolist(), strict=True))


def _image_labels(
    annotations: AnnotationTable, classes: ClassTable, categories: tuple[Category, ...]
) -> np.ndarray:
    """(I,) int64 column of each image's class, -1 for images that cannot be used; these are logged."""
    column_of_id = dict(zip((c.id for c in categories), classes.columns_of(categories).tolist(), strict=True))
    matches = match_categories(annotations.categories, categories)
    targets = [matches.target_of.get(c.id) for c in annotations.categories]
    lookup = np.array([-1 if target is None else column_of_id[target] for target in targets])
    labelled = annotations.positives.lengths > 0
    first = annotations.positives.values[annotations.positives.offsets[:-1][labelled]]
    labels = np.full(len(annotations), -1, dtype=np.int64)
    labels[labelled] = lookup[first]
    if unlabelled := np.count_nonzero(~labelled):
        get_logger().warning("%s: %d images have no label and are skipped", annotations.name, unlabelled)
    # Classes that the config leaves out are in nobody's way.
    left_out = np.array([target is not None for target in targets])
    unused = np.unique(first[(lookup[first] < 0) & ~left_out[first]])
    if len(unused):
        named = [why_unused(annotations.categories[i], matches, categories) for i in unused[:MOST_NAMED]]
        get_logger().warning(
            "%s: %d images of %d classes match no detection class and are skipped: %s",
            annotations.name, np.count_nonzero(np.isin(first, unused)), len(unused),
            listed(named, MOST_NAMED, "; ", len(unused)),
        )  # fmt: skip
    return labels


def why_unused(category: Category, matches: Matches, categories: tuple[Category, ...]) -> str:
    """The class for the log: with the classes that it may mean, or with the nearest one."""
    if names := matches.ambiguous.get(category.id):
        return f"{category.name!r} (may mean {' or '.join(repr(n) for n in names)})"
    near = nearest_class(category.name, categories)
    return f"{category.name!r}" + (f" (nearest: {near!r})" if near else "")
