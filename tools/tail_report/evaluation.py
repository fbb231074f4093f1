"""An evaluation on disk: its predictions, the annotations they were judged by, its images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from datasets.annotations.cache import open_annotations
from datasets.annotations.categories import FREQUENCIES, ClassTable
from datasets.annotations.class_edits import as_asked
from datasets.annotations.split_file import SplitFile
from datasets.annotations.table import AnnotationTable
from datasets.evaluation.dataset_record import DATASET_FILE, DatasetRecord, fingerprint, record_of
from datasets.evaluation.predictions import PREDICTIONS_FILE, Predictions, read_predictions
from datasets.image_level import image_labels_count
from datasets.images.folders import Images
from datasets.images.reader import ImageFolder
from datasets.opening import DataRequest, find_labelled_images, open_detection_data, paths_of
from util.errors import UserError
from util.logging import get_logger


@dataclass(frozen=True)
class Evaluation:
    """name: for people.  folder: of the predictions.  images: None where it is not known.
    record: with the counts of the classes as far as they can be known."""

    name: str
    folder: Path
    predictions: Predictions
    annotations: AnnotationTable
    images: Images | None
    record: DatasetRecord


def eval_folder(run: Path) -> Path:
    """The folder with the predictions of a run folder, of the output of `main.py --eval`, or that folder."""
    for folder in (run / "eval", run):
        if (folder / PREDICTIONS_FILE).is_file():
            return folder
    if not run.is_dir():
        raise UserError(f"{run}: no such folder")
    raise UserError(
        f"{run}: has no eval/{PREDICTIONS_FILE}; name a run folder or the --output_dir of `main.py --eval`"
    )


def names_of(runs: list[Path]) -> list[str]:
    """The shortest tails of the paths that tell them apart."""
    parts = [run.resolve().parts for run in runs]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(run) for run in runs]


def open_evaluations(runs: list[Path], annotations: Path | None, images: Path | None) -> list[Evaluation]:
    """The evaluations of runs, on the same annotations.

    annotations, images: replace what the records say.
    Raises UserError for a folder without predictions, one that does not say which annotations it was judged
    by, annotations that have changed since, and runs that were judged by different ones.
    """
    folders = [eval_folder(run) for run in runs]
    records = [DatasetRecord.read(folder) for folder in folders]
    for run, folder, record in zip(runs, folders, records, strict=True):
        if record is None and annotations is None:
            raise UserError(
                f"{run}: {folder / DATASET_FILE} is missing (an evaluation of an earlier version): add "
                "--annotations FILE"
            )
    named = [(run, record) for run, record in zip(runs, records, strict=True) if record is not None]
    known = [record for _, record in named]
    for run, record in named:
        if record.fingerprint != known[0].fingerprint:
            raise UserError(
                f"{named[0][0]} and {run} were evaluated on different annotations ({known[0].annotations} "
                f"and {record.annotations}): evaluate both on the same"
            )
    table, folder_of_images, record = _open_data(
        known[0] if known else None, annotations, SplitFile.read(folders[0].parent)
    )
    if known and known[0].fingerprint != record.fingerprint:
        raise UserError(
            f"{record.annotations}: not the annotations that {runs[0]} was evaluated on, or changed since: "
            "evaluate again"
        )
    for run, other in named:
        if other.damaged_image_ids != known[0].damaged_image_ids:
            raise UserError(
                f"{named[0][0]} and {run} were evaluated without different damaged images: evaluate both "
                "again"
            )
    if known:
        table = table.without(known[0].damaged_image_ids)
    if images is not None:
        upright = isinstance(folder_of_images, ImageFolder) and folder_of_images.upright
        folder_of_images = ImageFolder(images, upright=upright)
        folder_of_images.resolve([table.file_names[i] for i in range(len(table))])
    record = _with_counts(record, table, SplitFile.read(folders[0].parent))
    return [
        Evaluation(name, folder, read_predictions(folder / PREDICTIONS_FILE), table, folder_of_images, record)
        for name, folder in zip(names_of(runs), folders, strict=True)
    ]


def _open_data(
    record: DatasetRecord | None, path: Path | None, split: SplitFile | None
) -> tuple[AnnotationTable, Images | None, DatasetRecord]:
    """split: of a run that divided its data."""
    images: Images | None
    if path is not None:
        table = open_annotations(path)
        table = table if split is None else split.parts(table)[1]
        if record is None:
            return table, None, record_of(table, paths=[path])
        table = as_asked(table, record.edits)
        images = ImageFolder(record.images) if record.images else None
    else:
        assert record is not None  # open_evaluations asks for --annotations
        try:
            opened = open_detection_data(_request(record, split), train=False).val
        except UserError as error:
            raise UserError(
                f"{error}; if the data has moved: --annotations FILE --image_folder FOLDER"
            ) from None
        table, images = opened.table, opened.images
    return table, images, replace(record, fingerprint=fingerprint(table))


def _request(record: DatasetRecord, split: SplitFile | None) -> DataRequest:
    """The data as the evaluation had it."""
    return DataRequest(
        paths_of(record.data_path),
        record.dataset_file,
        record.edits,
        record.class_names,
        tuple(c.name for c in record.classes),
        record.labelled,
        split,
        # The evaluation would have refused what it was not to read.
        allow_outside=True,
        need_images=False,
    )


def _with_counts(record: DatasetRecord, table: AnnotationTable, split: SplitFile | None) -> DatasetRecord:
    """Counts that the evaluation did not know are taken from the data, as far as it is in place.

    A file with frequencies states training images for each class, as LVIS does.
    """
    if all(c.train_images is None for c in record.classes):
        if any(c.frequency in FREQUENCIES for c in table.categories):
            record = record.with_counts({c.name: c.image_count or 0 for c in table.categories})
        elif record.data_path:
            record = record.with_counts(_training_images(record, split))
    if all(c.image_level_images is None for c in record.classes) and record.data_path:
        record = record.with_counts(None, _image_level_images(record, table))
    return record


def _training_images(record: DatasetRecord, split: SplitFile | None) -> dict[str, int] | None:
    try:
        train = open_detection_data(_request(record, split)).train
    except UserError as error:
        get_logger().warning("training images of the classes are not known (%s)", error)
        return None
    assert train is not None  # it was asked for
    return {c.name: c.image_count or 0 for c in train.table.categories}


def _image_level_images(record: DatasetRecord, table: AnnotationTable) -> dict[str, int] | None:
    try:
        labelled = find_labelled_images(paths_of(record.data_path), record.imagenet_path).read()
    except UserError:
        # Most runs have none.
        return None
    return image_labels_count(labelled, ClassTable.from_categories(table.categories), table.categories)
