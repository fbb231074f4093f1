"""Which classes were looked for in an image, so that a loss may teach that they are absent."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from datasets.annotations.categories import ClassTable
from datasets.annotations.table import AnnotationTable


class JudgedColumns:
    """The model's C columns that are judged in each image of a table.

    These are the classes of its judged list, those verified absent, and those with boxes; but neither those
    of which not every instance is annotated (`not_exhaustive_category_ids`), nor those with a crowd. In a
    table that is not federated all of its classes are judged, but for crowds.

    classes:  the columns; those without a category of the table are judged nowhere.
    withheld: (C,) bool, columns that are judged nowhere because training drops their boxes.
    """

    def __init__(
        self, annotations: AnnotationTable, classes: ClassTable, withheld: np.ndarray | None = None
    ) -> None:
        self.annotations = annotations
        self.columns = classes.columns_of(annotations.categories)
        self.all = np.zeros(len(classes), bool)
        self.all[self.columns[self.columns >= 0]] = True
        self.withheld = np.zeros(len(classes), bool) if withheld is None else withheld

    def of(self, image: int) -> Bool[Tensor, " C"]:
        """Those of image 0..I-1."""
        table, rows = self.annotations, self.annotations.rows(image)
        present = table.category_index[rows]
        if table.federated:
            judged = np.zeros_like(self.all)
            row = table.judged_list[image]
            listed = table.judged[row] if row >= 0 else present[:0]
            self._set(judged, np.concatenate((listed, table.negatives[image], present)), True)
        else:
            judged = self.all.copy()
        unsure = np.concatenate((table.not_exhaustive[image], present[table.crowd[rows]]))
        self._set(judged, unsure, False)
        return torch.from_numpy(judged & ~self.withheld)

    def _set(self, judged: np.ndarray, categories: np.ndarray, value: bool) -> None:
        columns = self.columns[categories]
        judged[columns[columns >= 0]] = value
