"""What a run decides about its data, and what it is given of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from datasets.annotations.categories import ClassTable
from datasets.annotations.class_union import ClassNames
from datasets.annotations.frequency import as_in_training
from datasets.annotations.split_file import SplitFile
from datasets.annotations.table import AnnotationTable
from datasets.annotations.union import Part
from datasets.evaluation.dataset_record import DatasetRecord
from datasets.labelled_sample import LabelledSample
from datasets.loader import Loader
from util.structures import Batch


@dataclass(frozen=True)
class RunSettings:
    """What the command line and the process decide, not the config.

    data_path:    folder that holds `lvis_v1/` (or `coco/`) and `imagenet-lvis/`, or the LVIS folder itself;
        a list for several data sets.
    dataset_file: 'lvis', 'lvis_openvocab' (no rare boxes in training) or 'coco'.
    seed:         fixes every order and every augmentation.
    rank, world_size: of this process.
    num_workers:  reading processes per loader; results do not depend on it.
    ranks_here:   processes of the run on this machine, each with its own loaders.
    fix_size:     resizes all images to one size (`--fix_size`).
    pin_memory:   for training on a GPU.
    allow_outside: reads images outside of the data folder too (`--allow_outside`).
    sets:         to evaluate a model of several data sets: by the name of a set, own class name -> name in
        the model.
    split:        of the run, as its folder has it (`split.json`); None for a new run.
    """

    data_path: str | Sequence[str]
    dataset_file: str = "lvis"
    seed: int = 42
    rank: int = 0
    world_size: int = 1
    num_workers: int = 0
    ranks_here: int = 1
    fix_size: bool = False
    pin_memory: bool = False
    allow_outside: bool = False
    sets: ClassNames = field(default_factory=dict)
    split: SplitFile | None = None


@dataclass(frozen=True)
class DataParts:
    """Everything a run needs of the data.

    classes:         the columns of the model; counts and frequencies of the box-annotated training file.
    val_loader:      each validation image once over all ranks.
    val_annotations: for the evaluator.
    record:          of the validation data; with class counts if the training data was read.
    damaged_val_ids: gives the ids of this rank's validation images that could not be read so far.
    train_loader:    None for evaluation alone.
    labelled:        a few image-level images; None without that stream.
    worst_batch:     gives the training batch that needs most memory, of as many images as the config says or
        as it is asked for; None for evaluation alone.
    train_images:    box-annotated ones.
    train_tables:    the box-annotated images that are trained on, then image-level ones, if any.
    val_parts:       of several data sets, those with validation images; empty for a single set.
    sets:            as in `RunSettings`.
    union_table:     the classes of several training sets, for people; '' for a single set or in evaluation.
    split:           for the run's folder; None where no set was divided.
    """

    classes: ClassTable
    val_loader: Loader
    val_annotations: AnnotationTable
    record: DatasetRecord
    damaged_val_ids: Callable[[], list[int]]
    train_loader: Loader | None = None
    labelled: LabelledSample | None = None
    worst_batch: Callable[..., Batch] | None = None
    train_images: int = 0
    train_tables: tuple[AnnotationTable, ...] = ()
    val_parts: tuple[Part, ...] = ()
    sets: ClassNames = field(default_factory=dict)
    union_table: str = ""
    split: SplitFile | None = None

    def as_trained(self, classes: ClassTable, counted: bool) -> DataParts:
        """The parts of an evaluation whose checkpoint knows how often training saw each class.

        classes: with these counts and frequencies.  counted: whether the counts are known.
        """
        categories = as_in_training(self.val_annotations.categories, classes)
        record = self.record.with_frequencies({c.name: c.frequency for c in categories})
        if counted:
            record = record.with_counts(dict(zip(classes.names, classes.image_counts, strict=True)))
        annotations = replace(self.val_annotations, categories=categories)
        parts = tuple(part.as_in_training(categories) for part in self.val_parts)
        return replace(self, classes=classes, val_annotations=annotations, record=record, val_parts=parts)
