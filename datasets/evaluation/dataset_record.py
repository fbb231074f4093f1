"""What an evaluation leaves beside its predictions: where its data lies, and the counts of its classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np

from datasets.annotations.class_edits import ClassEdits
from datasets.annotations.class_union import ClassNames
from datasets.annotations.table import AnnotationTable
from util.errors import UserError, first_line
from util.files import atomic_write

DATASET_FILE = "dataset.json"


@dataclass(frozen=True)
class RecordedClass:
    """train_images: box-annotated training images that show the class.
    image_level_images: image-level training images labelled with it.
    Either is None where the evaluation did not know."""

    name: str
    frequency: str = ""
    train_images: int | None = None
    image_level_images: int | None = None


@dataclass(frozen=True)
class DatasetRecord:
    """data_path, dataset_file, imagenet_path: as the run was given them; paths are absolute, '' if unknown.
        Several data sets are a list.
    annotations: the file or folder of the validation annotations.  images: the folder of their images.
    fingerprint: of the annotations' content.
    classes: of the validation annotations, ascending by id.
    damaged_image_ids: of images that could not be read: predictions and metrics leave them out.
    edits: of the class list.  class_names: of several sets' classes in the union, by set.
    labelled: the classes that were looked for in a set's images, by set."""

    data_path: str | tuple[str, ...]
    dataset_file: str
    imagenet_path: str
    annotations: str
    images: str
    fingerprint: str
    classes: tuple[RecordedClass, ...]
    damaged_image_ids: tuple[int, ...] = ()
    edits: ClassEdits = field(default_factory=ClassEdits)
    class_names: ClassNames = field(default_factory=dict)
    labelled: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def with_counts(
        self,
        train_images: Mapping[str, int] | None = None,
        image_level_images: Mapping[str, int] | None = None,
    ) -> DatasetRecord:
        """The record with counts by class name; what is None stays as it is."""
        classes = self.classes
        if train_images is not None:
            classes = tuple(replace(c, train_images=train_images.get(c.name)) for c in classes)
        if image_level_images is not None:
            classes = tuple(replace(c, image_level_images=image_level_images.get(c.name, 0)) for c in classes)
        return replace(self, classes=classes)

    def with_frequencies(self, frequencies: Mapping[str, str]) -> DatasetRecord:
        """The record with the frequencies of its classes, by class name."""
        return replace(self, classes=tuple(replace(c, frequency=frequencies[c.name]) for c in self.classes))

    def write(self, folder: Path) -> None:
        """Writes dataset.json. Raises UserError where the file cannot be written."""
        with atomic_write(folder / DATASET_FILE, durable=False) as file:
            file.write(msgspec.json.format(msgspec.json.encode(self), indent=1).decode() + "\n")

    @classmethod
    def read(cls, folder: Path) -> DatasetRecord | None:
        """The record of an evaluation; None where it left none. Raises UserError for a damaged file."""
        path = folder / DATASET_FILE
        if not path.is_file():
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (msgspec.MsgspecError, OSError, RecursionError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({first_line(error)}); evaluate again") from None


def record_of(
    annotations: AnnotationTable,
    *,
    paths: Sequence[Path],
    images: Path | str = "",
    data_path: Path | str | Sequence[str] = "",
    dataset_file: str = "",
    imagenet_path: str = "",
    edits: ClassEdits | None = None,
    class_names: ClassNames | None = None,
    labelled: Mapping[str, Sequence[str]] | None = None,
) -> DatasetRecord:
    """The record of validation annotations that were read from `paths`, without counts."""
    return DatasetRecord(
        data_path=_absolute(data_path)
        if isinstance(data_path, (str, Path))
        else tuple(map(_absolute, data_path)),
        dataset_file=dataset_file,
        imagenet_path=_absolute(imagenet_path),
        annotations=", ".join(map(_absolute, paths)),
        images=_absolute(images),
        fingerprint=fingerprint(annotations),
        classes=tuple(RecordedClass(c.name, c.frequency) for c in annotations.categories),
        edits=edits or ClassEdits(),
        class_names=class_names or {},
        labelled=labelled or {},
    )


def _absolute(path: Path | str) -> str:
    return str(Path(path).resolve()) if path else ""


def fingerprint(annotations: AnnotationTable) -> str:
    """Equal for annotations that give the same metrics for the same predictions."""
    return _digest_of(annotations).hexdigest()[:32]


def training_fingerprint(tables: Iterable[AnnotationTable]) -> str:
    """Equal for annotations that are the same to train on."""
    digest = hashlib.sha256()
    for table in tables:
        one = _digest_of(table)
        for column in (table.positives.offsets, table.positives.values):
            one.update(np.ascontiguousarray(column).data)
        names = (table.file_names[image] for image in range(len(table)))
        one.update("\n".join(names).encode(errors="surrogatepass"))
        digest.update(one.digest())
    return digest.hexdigest()[:32]


def _digest_of(annotations: AnnotationTable) -> hashlib._Hash:
    digest = hashlib.sha256()
    judged = annotations.judged.offsets, annotations.judged.values, annotations.judged_list
    columns: Sequence[np.ndarray] = (
        annotations.image_ids,
        annotations.category_ids,
        annotations.box_offsets,
        annotations.boxes_xywh,
        annotations.areas,
        annotations.category_index,
        annotations.ignore,
        annotations.crowd,
        annotations.negatives.offsets,
        annotations.negatives.values,
        annotations.not_exhaustive.offsets,
        annotations.not_exhaustive.values,
        # Few files state any.
        *(judged if len(annotations.judged) else ()),
    )
    for column in columns:
        digest.update(np.ascontiguousarray(column).data)
    digest.update("\n".join(c.name for c in annotations.categories).encode())
    return digest
