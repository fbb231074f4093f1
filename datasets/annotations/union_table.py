"""What became of the classes of each set in a union, as a table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from datasets.annotations.class_union import NAME, NEW, ClassUnion
from datasets.annotations.table import count_images
from datasets.annotations.union import Part

_GAP = "   "
# Of more classes, the console shows only those that more than one set has.
MOST_SHOWN = 60


def union_table(classes: ClassUnion, parts: Sequence[Part], only_shared: bool = False) -> str:
    """A row for each class of the union: its name, and for each set the own class with its images and boxes.

    parts: of the training data.  only_shared: without the classes that a single set has.
    """
    columns = [_column(classes, part) for part in parts]
    names = [c.name for c in classes.categories]
    if only_shared:
        names = [name for name in names if sum(name in column for column in columns) > 1]
    width = max(map(len, ("class", *names)))
    head, under, rows = f"{'class':<{width}}", " " * width, [f"{name:<{width}}" for name in names]
    for part, column in zip(parts, columns, strict=True):
        cells = [column.get(name, ("-", "", "")) for name in names]
        own = max(map(len, ("class", *(cell[0] for cell in cells))))
        title = f"{part.name} ({len(part.class_index)} classes, {len(part.table)} images)"
        own = max(own, len(title) - 16)
        head += _GAP + f"{title:<{own + 16}}"
        under += _GAP + f"{'class':<{own}}{'images':>8}{'boxes':>8}"
        rows = [
            f"{row}{_GAP}{text:<{own}}{images:>8}{boxes:>8}"
            for row, (text, images, boxes) in zip(rows, cells, strict=True)
        ]
    return "\n".join(line.rstrip() for line in (head, under, *rows))


def short_union_table(classes: ClassUnion, parts: Sequence[Part]) -> str:
    """The table for the console: of many classes, only those that more than one set has."""
    times = Counter(name for members in classes.members.values() for _, name, _ in members)
    shared = sum(count > 1 for count in times.values())
    said = f"{len(times)} classes of {len(parts)} data sets, {shared} of them in more than one"
    if len(times) <= MOST_SHOWN:
        return f"{said}\n{union_table(classes, parts)}"
    return f"{said}; all are in classes.txt" + (f"\n{union_table(classes, parts, True)}" if shared else "")


def _column(classes: ClassUnion, part: Part) -> dict[str, tuple[str, str, str]]:
    """Name in the union -> (own name with id and how it was matched, images, boxes)."""
    table, number = part.table, len(part.table.categories)
    images = count_images(table.category_index, table.image_index, number)
    boxes = np.bincount(table.category_index, minlength=number)
    row_of = {c.name: row for row, c in enumerate(table.categories)}
    cells = {}
    for own, name, how in classes.members[part.name]:
        row = row_of[own.name]
        text = f"{own.name} (id {own.id}{'' if how in (NEW, NAME) else f', by {how}'})"
        cells[name] = (text, str(images[row]), str(boxes[row]))
    return cells
