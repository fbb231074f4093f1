"""Pictures with a label and no boxes (ImageNet-LVIS): the whole picture is one coarse box."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.classes import Category, ClassTable, match_categories
from datasets.lvis import Policy
from datasets.mosaic import Mosaic
from datasets.pictures import DamagedPictures, PictureFolder, first_readable
from datasets.samples import Draw, Sample, to_example
from datasets.store import AnnotationStore
from datasets.transforms import whole_picture_box
from util.errors import UserError
from util.logging import get_logger
from util.structures import Target


class ImageLevel(Dataset):
    """Image-level pictures, each with one label, alone or in mosaics of four.

    annotations: the store of `imagenet_lvis_image_info.json`; the first of `pos_category_ids` is the label.
    pictures:    where they are read from.
    classes:     the columns of the model.
    categories:  of the box-annotated file. The image-level file's own categories are matched to them by name,
                 synset or synonym, so their ids need not agree.
    policy:      the augmentation of each picture, before the mosaic.
    mosaic:      None shows pictures alone.
    seed:        of the run.

    Pictures without a label, or of a class that matches nothing, are left out, counted and reported.
    """

    def __init__(
        self,
        annotations: AnnotationStore,
        pictures: PictureFolder,
        classes: ClassTable,
        categories: tuple[Category, ...],
        policy: Policy,
        *,
        mosaic: Mosaic | None = None,
        seed: int = 0,
    ) -> None:
        self.annotations = annotations
        self.pictures = pictures
        self.policy = policy
        self.mosaic = mosaic
        self.seed = seed
        labels = _picture_labels(annotations, classes, categories)
        self.used = np.flatnonzero(labels >= 0)
        self.labels = labels[self.used]
        if not len(self.used):
            raise UserError(
                f"{annotations.name}: none of its {len(annotations)} pictures has a class of the model"
            )
        self.damaged = DamagedPictures(len(self.used))

    def __len__(self) -> int:
        return len(self.used)

    def __getitem__(self, draw: Draw | int) -> tuple[Tensor, Target]:
        """The picture or mosaic (3, H, W) float32, normalised, and its Target with `image_level` set."""
        draw = draw if isinstance(draw, Draw) else Draw(int(draw))
        rng = draw.generator(self.seed)
        index, sample = self._augmented(draw.index, rng)
        image_id = self.annotations.image_ids[self.used[index]]
        if self.mosaic is not None:
            partners = [self._augmented(int(i), rng)[1] for i in rng.integers(len(self), size=3)]
            sample = self.mosaic([sample, *partners], rng)
        return to_example(sample, image_id, sample.size, image_level=True)

    def damaged_names(self) -> list[str]:
        """File names of the pictures met so far that could not be used."""
        return [self.annotations.file_names[self.used[i]] for i in self.damaged.pictures()]

    def _augmented(self, index: int, rng: np.random.Generator) -> tuple[int, Sample]:
        index, sample = first_readable(self.read, index, len(self), rng, self.damaged)
        return index, self.policy(sample, rng)

    def read(self, index: int) -> Sample:
        """Picture 0..len-1 as it is in its file, with its coarse box. Raises PictureError."""
        image = self.pictures.read(self.annotations.file_names[self.used[index]])
        return Sample.make(image, whole_picture_box(image), torch.tensor([self.labels[index]]))


def _picture_labels(
    annotations: AnnotationStore, classes: ClassTable, categories: tuple[Category, ...]
) -> np.ndarray:
    """(I,) int64 class index of each picture, -1 for those that cannot be used; these are reported."""
    name_of_id = {c.id: c.name for c in categories}
    index_of_name = {name: index for index, name in enumerate(classes.names)}
    matches = match_categories(annotations.categories, categories)
    lookup = np.array(
        [index_of_name.get(name_of_id.get(matches.get(c.id, -1), ""), -1) for c in annotations.categories]
    )
    labelled = annotations.positives.lengths > 0
    first = annotations.positives.values[annotations.positives.offsets[:-1][labelled]]
    labels = np.full(len(annotations), -1, dtype=np.int64)
    labels[labelled] = lookup[first]
    unlabelled, unmatched = np.count_nonzero(~labelled), np.flatnonzero(lookup[first] < 0)
    if unlabelled:
        get_logger().warning("%s: %d pictures have no label and are left out", annotations.name, unlabelled)
    if len(unmatched):
        name = annotations.categories[first[unmatched[0]]].name
        get_logger().warning(
            "%s: %d pictures of %d classes (first: %r) match no detection class and are left out",
            annotations.name, len(unmatched), len(np.unique(first[unmatched])), name,
        )  # fmt: skip
    return labels
