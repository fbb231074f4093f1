"""Class names are the interface: dataset ids become columns 0..C-1 here, once, and ids again in results."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from datasets.annotations.json_errors import Int64, convert, describe_fault, is_class_name, is_text
from util.errors import UserError, nearest
from util.logging import get_logger

FREQUENCIES = ("r", "c", "f")
Frequency = Literal["", "r", "c", "f"]

# `num_classes` of the release's configs (largest LVIS v1 id + 1), and of configs derived from them for other
# data.
OFFICIAL_NUM_CLASSES = 1204


@dataclass(frozen=True)
class Category:
    """One entry of an annotation file's `categories`, as LVIS writes it.

    name: without the spaces around it, which count for nothing. A number is a name too.

    frequency: 'r', 'c', 'f', or '' if the file does not say.
    image_count: training images that contain the class; None if the file does not say.
    """

    id: Int64
    name: Annotated[str, msgspec.Meta(min_length=1)]
    synset: str = ""
    synonyms: tuple[str, ...] = ()
    frequency: Frequency = ""
    image_count: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None

    @classmethod
    def from_json(cls, entry: Any) -> Category:
        """From an element of the JSON's list. Raises UserError naming the category and the key at fault."""
        present = entry
        if isinstance(entry, Mapping):
            present = {key: value for key, value in entry.items() if value is not None}
            name = present.get("name")
            if type(name) in (str, int):
                present["name"] = str(name).strip()
        try:
            category = convert(present, cls)
        except msgspec.ValidationError as error:
            raise UserError(describe_fault("category", entry, error)) from None
        if not is_class_name(category.name):
            raise UserError(f"category {category.id}: its `name`, {category.name!r:.60}, is no line of text")
        for key, texts in (("synset", (category.synset,)), ("synonyms", category.synonyms)):
            if wrong := [text for text in texts if text and not is_text(text)]:
                raise UserError(
                    f"category {category.id}: its `{key}` holds half of a character: {wrong[0]!r:.60}"
                )
        return category


@dataclass(frozen=True)
class ClassTable:
    """The classes of a model or dataset in the order of its classifier's columns, C of them.

    names:        column -> name.
    ids:          column -> category id of the dataset, -1 if it has none there.
    image_counts: column -> images of the box-annotated *training* file that contain the class.
    frequencies:  column -> 'r', 'c', 'f' or ''.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    image_counts: tuple[int, ...]
    frequencies: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def columns_of(self, categories: Iterable[Category]) -> np.ndarray:
        """(len(categories),) int64: the column of each category by its name, -1 if there is none."""
        column_of_name = {name: column for column, name in enumerate(self.names)}
        return np.array([column_of_name.get(c.name, -1) for c in categories], dtype=np.int64)

    @classmethod
    def from_categories(
        cls,
        categories: Iterable[Category | Mapping[str, Any]],
        class_names: Sequence[str] | None = None,
    ) -> ClassTable:
        """The table of an annotation file's categories.

        class_names: a checkpoint's list, which gives the order; categories are matched to it by name, and
            '' is a column without a class. Without it the order is that of ascending ids.
        Raises UserError for an empty list, a repeated id or name, and a category that `class_names`
        lacks. Warns of names that differ only in case, underscores or spaces.
        """
        entries = [c if isinstance(c, Category) else Category.from_json(c) for c in categories]
        if not entries:
            raise UserError("the class list is empty: the annotation file has no categories")
        _forbid_repeats("category id", [c.id for c in entries])
        _forbid_repeats("class name", [c.name for c in entries])
        _warn_of_similar_names([c.name for c in entries])
        by_name = {c.name: c for c in entries}
        if class_names is None:
            names = [c.name for c in sorted(entries, key=lambda c: c.id)]
        else:
            names = list(class_names)
            _forbid_repeats("class name of the checkpoint", [name for name in names if name])
            _forbid_missing(by_name, names)
        matched = [by_name.get(name) for name in names]
        return cls(
            names=tuple(names),
            ids=tuple(c.id if c else -1 for c in matched),
            image_counts=tuple((c.image_count or 0) if c else 0 for c in matched),
            frequencies=tuple(c.frequency if c else "" for c in matched),
        )

    def without_rare_images(self) -> ClassTable:
        """The same classes where training sees no box of a rare one: their image counts are 0."""
        counts = zip(self.image_counts, self.frequencies, strict=True)
        return replace(self, image_counts=tuple(0 if f == "r" else n for n, f in counts))

    def check_num_classes(self, num_classes: int) -> None:
        """Raises UserError unless a configured `num_classes` agrees with the classes.

        Accepted: 0 (derived), the number of classes, the release's convention of largest id + 1, and the
        value of its LVIS configs, whatever the data.
        """
        largest = max(self.ids) + 1
        if num_classes in (0, len(self), largest, OFFICIAL_NUM_CLASSES):
            return
        raise UserError(
            f"num_classes={num_classes} contradicts the annotations, which have {len(self)} classes: "
            f"omit it, or write {len(self)} (largest id + 1, {largest}, is accepted too)"
        )


def renamed(category: Category, name: str) -> Category:
    """The class by another name. The old one becomes a synonym, by which other data still finds it."""
    if name == category.name:
        return category
    return replace(category, name=name, synonyms=tuple(dict.fromkeys((*category.synonyms, category.name))))


def plain_name(name: str) -> str:
    """A name in lower case, with one space for every run of underscores, hyphens and spaces."""
    return re.sub(r"[\s_-]+", " ", name).strip().lower()


def _forbid_repeats(what: str, values: Sequence) -> None:
    value, count = Counter(values).most_common(1)[0]
    if count > 1:
        raise UserError(f"{what} {value!r} occurs {count} times; each must occur once")


def _forbid_missing(by_name: Mapping[str, Category], names: Sequence[str]) -> None:
    missing = [c for name, c in by_name.items() if name not in set(names)]
    if missing:
        first = missing[0]
        raise UserError(
            f"class {first.name!r} (category id {first.id}) of the annotations is not among the "
            f"{len(names)} classes of the checkpoint ({len(missing)} such).{nearest(first.name, names)}"
        )


def _warn_of_similar_names(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(plain_name(name), name)
        if other != name:
            get_logger().warning(
                "class names %r and %r differ only in case, underscores or spaces", other, name
            )
