"""A few image-level images as they are, for a look at what the teacher calls them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from datasets.augment.policy import EvalPolicy
from datasets.image_level import ImageLevel
from datasets.images.preprocess import ImageError
from datasets.loader import Collate
from datasets.sample import to_model_input
from util.structures import Batch

# What most CLIPs were trained at: whether both sides match shows at that size, and soonest.
SIDE = 224


@dataclass(frozen=True)
class LabelledSample:
    """Batches of one image and its coarse box, without augmentation or mosaic.

    source: the image-level stream.  side: pixels of the short side; the long one has at most twice as many.
    """

    source: ImageLevel
    side: int = SIDE

    def batches(self, most: int, per_class: int | None = None) -> Iterator[Batch]:
        """Up to `most` images of all classes in turn, `per_class` of each, the same at every call.

        Images that cannot be read are left out.
        """
        policy, collate = EvalPolicy(self.side, 2 * self.side), Collate(1)
        rng = np.random.default_rng(0)
        for image in self._in_turn(most, per_class):
            try:
                sample = self.source.augmented(image, rng, policy)
            except ImageError:  # named when training meets it
                continue
            index = self.source.annotations.image_ids[self.source.used[image]]
            yield collate([to_model_input(sample, index, sample.size, image_level=True)])

    def _in_turn(self, most: int, per_class: int | None) -> list[int]:
        labels = self.source.labels
        rng = np.random.default_rng(0)
        # The number of an image among those of its class, in random order.
        order = rng.permutation(len(labels))
        order = order[np.argsort(labels[order], kind="stable")]
        starts = np.searchsorted(labels[order], labels[order])
        number = np.arange(len(order)) - starts
        keep = np.lexsort((rng.random(len(order)), number))
        if per_class is not None:
            keep = keep[number[keep] < per_class]
        return order[keep[:most]].tolist()
