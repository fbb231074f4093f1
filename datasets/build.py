"""Config -> datasets and loaders. The only file of this package that sees the config."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import partial

import numpy as np

from config import Config
from datasets.annotations.categories import Category, ClassTable
from datasets.annotations.class_edits import ClassEdits
from datasets.annotations.frequency import as_in_training
from datasets.annotations.split_file import SPLIT_FILE, SplitFile
from datasets.annotations.table import AnnotationTable
from datasets.annotations.union_table import short_union_table, union_table
from datasets.augment.mosaic import Mosaic
from datasets.augment.photometric import Photometric
from datasets.augment.policy import EvalPolicy, TrainPolicy
from datasets.detection import DetectionDataset, TrainingBoxes
from datasets.evaluation.dataset_record import DatasetRecord, record_of
from datasets.image_level import ImageLevel
from datasets.images.reader import ImageFolder
from datasets.judged_classes import JudgedColumns
from datasets.labelled_sample import LabelledSample
from datasets.loader import Collate, Loader, ShardBatchSampler
from datasets.opening import (
    DataRequest,
    DetectionData,
    OpenedSplit,
    open_detection_data,
    open_labelled_images,
    paths_of,
    set_names,
)
from datasets.run_data import DataParts, RunSettings
from datasets.sample import SampleIndex
from datasets.sampling.aspect import AspectGroupedSampler, aspects_of
from datasets.sampling.mixing import ImageDataset, MixedBatchSampler, MixRatio, MultiDataset, Window
from datasets.sampling.samplers import (
    ClassAwareSampler,
    RepeatFactorSampler,
    ShardedSampler,
    ShuffledSampler,
)
from datasets.worker_limits import affordable_workers, batch_bytes
from util.errors import UserError
from util.logging import get_logger
from util.pixels import Size
from util.structures import Batch


def build_datasets(
    config: Config,
    settings: RunSettings,
    *,
    train: bool = True,
    class_names: Sequence[str] | None = None,
    trained: Sequence[str] = (),
) -> DataParts:
    """Datasets and loaders of a run.

    train: False reads the validation data only; class counts are then those of the validation file.
    class_names: a checkpoint's class list, which gives the order of the columns.
    trained: class names of the model to evaluate, which `classes`, `rename` and `merge` may name.
    Raises UserError for whatever the user can fix.
    """
    request = _request(config, settings, trained)
    if train:
        _check_weights(config, request)
    data = open_detection_data(request, train=train)
    classes = ClassTable.from_categories((data.train or data.val).table.categories, class_names)
    classes.check_num_classes(config.num_classes)
    parts = _for_evaluation(config, settings, request, data, classes)
    return parts if data.train is None else _for_training(config, settings, data, data.train, parts)


def _for_evaluation(
    config: Config, settings: RunSettings, request: DataRequest, data: DetectionData, classes: ClassTable
) -> DataParts:
    val_annotations = replace(data.val.table, categories=as_in_training(data.val.table.categories, classes))
    val_set = DetectionDataset(
        val_annotations,
        data.val.images,
        classes,
        _eval_policy(config, settings),
        seed=settings.seed,
        evaluation=True,
        max_damaged_share=config.max_damaged_share,
        draft=config.decode_draft,
    )
    return DataParts(
        classes,
        _val_loader(config, settings, val_set),
        val_annotations,
        _record(config, request, data, val_annotations),
        val_set.damaged_ids,
        sets=data.union.class_names if data.union else {},
        split=_divided(request, data),
        val_parts=tuple(part.as_in_training(val_annotations.categories) for part in data.val.parts),
    )


def _for_training(
    config: Config, settings: RunSettings, data: DetectionData, train: OpenedSplit, parts: DataParts
) -> DataParts:
    """parts: for evaluation."""
    if data.union:
        get_logger().info("%s", short_union_table(data.union, train.parts))
    classes, annotations = parts.classes, train.table
    open_vocabulary = settings.dataset_file == "lvis_openvocab"
    if open_vocabulary:
        # The federated loss draws classes by these counts: it must not teach that rare ones are absent.
        classes = classes.without_rare_images()
    train_set = DetectionDataset(
        annotations,
        train.images,
        classes,
        _train_policy(config, settings),
        seed=settings.seed,
        rare=not open_vocabulary,
        max_damaged_share=config.max_damaged_share,
        draft=config.decode_draft,
        judged=_judged_columns(config, settings, annotations, classes),
    )
    if not len(train_set.boxes):
        rare = " but those of rare classes, which lvis_openvocab leaves out" if open_vocabulary else ""
        raise UserError(f"{annotations.name}: has no box to train on{rare}")
    image_level = _image_level(config, settings, classes, data.categories, train_set.boxes)
    record = parts.record.with_counts(
        dict(zip(classes.names, classes.image_counts, strict=True)),
        image_level.images_of_class(classes.names) if image_level else {},
    )
    return replace(
        parts,
        classes=classes,
        record=record,
        train_loader=_train_loader(config, settings, train_set, image_level, _weights(config, train)),
        worst_batch=partial(_worst_batch, config, settings, train_set),
        labelled=LabelledSample(image_level) if image_level else None,
        train_images=len(train_set),
        train_tables=(annotations, *((image_level.annotations,) if image_level else ())),
        union_table=union_table(data.union, train.parts) if data.union else "",
    )


def _request(config: Config, settings: RunSettings, trained: Sequence[str]) -> DataRequest:
    paths = paths_of(settings.data_path)
    if len(paths) > 1 and settings.dataset_file == "lvis_openvocab":
        raise UserError("lvis_openvocab trains without LVIS's rare classes: it takes one --data_path")
    return DataRequest(
        data_path=paths,
        dataset_file=settings.dataset_file,
        edits=ClassEdits(config.merge, config.rename, config.classes),
        class_names=settings.sets,
        trained=tuple(trained),
        labelled=config.labelled_classes,
        split=_split_plan(config, settings),
        allow_outside=settings.allow_outside,
    )


def _divided(request: DataRequest, data: DetectionData) -> SplitFile | None:
    if request.split is None or not data.divided:
        return None
    return replace(request.split, sets={**request.split.sets, **data.divided})


def _split_plan(config: Config, settings: RunSettings) -> SplitFile | None:
    """How sets without a validation split are divided: as the run has it, else by the config."""
    if not config.val_share:
        return None
    plan = settings.split or SplitFile(config.val_share, settings.seed)
    if plan.val_share != config.val_share:
        raise UserError(
            f"val_share={config.val_share:g}, but the {SPLIT_FILE} of this run was made with "
            f"{plan.val_share:g}: take that, or start a new run in a new folder"
        )
    return plan


def _record(
    config: Config, request: DataRequest, data: DetectionData, val_annotations: AnnotationTable
) -> DatasetRecord:
    images, paths = data.val.images, request.data_path
    return record_of(
        val_annotations,
        paths=data.val.paths,
        images=images.root if isinstance(images, ImageFolder) else "",
        data_path=paths[0] if len(paths) == 1 else paths,
        dataset_file=request.dataset_file,
        imagenet_path=config.imagenet_path,
        edits=request.edits,
        labelled=request.labelled,
        class_names=data.union.class_names if data.union else {},
    )


def _check_weights(config: Config, request: DataRequest) -> None:
    count, names = len(config.set_weights), set_names(request.data_path)
    if count and count != len(names):
        raise UserError(
            f"set_weights={list(config.set_weights)} has {count} weights for {len(names)} data sets "
            f"({', '.join(names)})"
        )


def _weights(config: Config, split: OpenedSplit) -> np.ndarray | None:
    """(I,) float64: how often each training image is to be seen, relative to 1; None: once."""
    if not config.set_weights:
        return None
    lengths = [len(part.table) for part in split.parts] or [len(split.table)]
    return np.repeat(config.set_weights, lengths)


def _judged_columns(
    config: Config, settings: RunSettings, train: AnnotationTable, classes: ClassTable
) -> JudgedColumns | None:
    """`judged_classes`; None where the loss takes every class as judged."""
    wanted = config.judged_classes
    if wanted == "auto":
        wanted = len(paths_of(settings.data_path)) > 1 or bool((train.judged_list >= 0).any())
    if not wanted:
        return None
    withheld = None
    if settings.dataset_file == "lvis_openvocab":
        withheld = np.array(classes.frequencies) == "r"
    return JudgedColumns(train, classes, withheld)


def _worst_batch(
    config: Config, settings: RunSettings, train_set: DetectionDataset, batch_size: int = 0
) -> Batch:
    """The images with most boxes, all on the largest canvas that a training batch can have.

    batch_size: 0 for the config's.
    """
    batch_size = batch_size or config.images_per_batch
    height, width = _largest_canvas(config, settings, train_set.annotations.sizes, batch_size)
    stretched = copy(train_set)
    stretched.policy = replace(
        _train_policy(config, settings), scales=(height,), max_size=width, fixed_size=True
    )
    crowded = np.argsort(-np.diff(train_set.boxes.offsets), kind="stable")
    # A small data set has fewer images than a batch: they repeat.
    images = np.resize(crowded[:batch_size], batch_size)
    found = [stretched[SampleIndex(int(i))] for i in images]
    return Collate(config.pad_size_divisor)([image for image in found if image is not None])


def _largest_canvas(config: Config, settings: RunSettings, sizes: np.ndarray, batch_size: int) -> Size:
    """(height, width) of the largest batch of images of these (I, 2) sizes in the file, 0 where unknown."""
    together = batch_size > 1 and not config.group_by_aspect
    return _eval_policy(config, settings).largest(sizes, together=together)


def _train_policy(config: Config, settings: RunSettings) -> TrainPolicy:
    return TrainPolicy(
        scales=config.data_aug_scales,
        max_size=config.data_aug_max_size,
        crop_resize=config.data_aug_scales2_resize,
        crop_sides=config.data_aug_scales2_crop,
        fixed_size=settings.fix_size,
        color_jitter=config.color_jitter,
        photometric=Photometric(config.photometric) if config.photometric else None,
    )


def _eval_policy(config: Config, settings: RunSettings) -> EvalPolicy:
    return EvalPolicy(max(config.data_aug_scales), config.data_aug_max_size, fixed_size=settings.fix_size)


def _image_level(
    config: Config,
    settings: RunSettings,
    classes: ClassTable,
    categories: tuple[Category, ...],
    boxes: TrainingBoxes,
) -> ImageLevel | None:
    if not config.use_imagenet:
        return None
    annotations, images = open_labelled_images(
        paths_of(settings.data_path), config.imagenet_path, allow_outside=settings.allow_outside
    )
    mosaic = None
    if config.imagenet_use_mosaic:
        mosaic = Mosaic(size=config.mosaic_size, centre=config.mosaic_centre, fill=config.mosaic_fill)
    threshold = config.image_level_repeat_sh
    return ImageLevel(
        annotations,
        images,
        classes,
        categories,
        _train_policy(config, settings),
        mosaic=mosaic,
        class_factors=boxes.class_factors(len(classes), threshold) if threshold else None,
        seed=settings.seed,
        max_damaged_share=config.max_damaged_share,
        draft=config.decode_draft,
    )


def _sampler(
    config: Config, settings: RunSettings, train_set: DetectionDataset, weights: np.ndarray | None
) -> ShardedSampler:
    shard = {"seed": settings.seed, "rank": settings.rank, "world_size": settings.world_size}
    boxes, num_images = train_set.boxes, len(train_set)
    if config.use_cas:
        return ClassAwareSampler(boxes.image_index, boxes.labels, num_images, **shard)
    if config.use_rfs:
        factors = boxes.image_factors(config.rfs_repeat_sh)
        weights = factors if weights is None else factors * weights
    if weights is not None:
        return RepeatFactorSampler(weights, **shard)
    return ShuffledSampler(num_images, **shard)


def _train_loader(
    config: Config,
    settings: RunSettings,
    train_set: DetectionDataset,
    image_level: ImageLevel | None,
    weights: np.ndarray | None,
) -> Loader:
    """weights: see `_weights`."""
    sampler = _sampler(config, settings, train_set, weights)
    if config.group_by_aspect:
        aspects = aspects_of(train_set.annotations.sizes)
        sampler = AspectGroupedSampler(sampler, aspects, config.images_per_batch)
    batches = MixedBatchSampler(
        sampler,
        config.images_per_batch,
        mix_ratio=MixRatio(detection=config.main_weight, image_level=config.sub_weight),
        num_image_level=0 if image_level is None else len(image_level),
        image_level_factors=None if image_level is None else image_level.factors,
        image_level_batch_size=config.sub_batch_size or config.images_per_batch,
        window=Window(config.image_level_epochs[0], config.image_level_end or None),
    )
    if not len(batches):
        needed = config.images_per_batch * settings.world_size
        raise UserError(
            f"an epoch has {sampler.length} images, fewer than one batch of {needed} over all processes: "
            "lower batch_size"
        )
    get_logger().info(
        "an epoch is %d box-annotated and %d image-level batches per process%s",
        batches.detection_batches,
        batches.image_level_batches,
        _stream_note(config, batches) if image_level is not None else "",
    )
    sets: list[ImageDataset] = [train_set] if image_level is None else [train_set, image_level]
    canvas = _largest_canvas(config, settings, train_set.annotations.sizes, config.images_per_batch)
    largest = [batch_bytes(canvas, config.images_per_batch, config.pad_size_divisor)]
    if image_level is not None:
        size, level_sizes = batches.image_level_batch_size, image_level.annotations.sizes
        canvas = image_level.canvas or _largest_canvas(config, settings, level_sizes, size)
        largest.append(batch_bytes(canvas, size, config.pad_size_divisor))
    return _loader(config, settings, MultiDataset(sets), batches, max(largest))


def _stream_note(config: Config, batches: MixedBatchSampler) -> str:
    """Which epochs, counted from 1, have image-level batches; empty for all."""
    if not batches.image_level_batches:
        return f": main_weight={config.main_weight} is more than there are, so no image-level image comes"
    first, end = config.image_level_epochs
    if (first, end) == (0, config.epochs):
        return ""
    epochs = f"epochs {first + 1} to {end}" if first + 1 < end else f"epoch {end}"
    return f", in {epochs}; in the others box-annotated ones take their places"


def _val_loader(config: Config, settings: RunSettings, val_set: DetectionDataset) -> Loader:
    batches = ShardBatchSampler(
        len(val_set), config.eval_batch_size, rank=settings.rank, world_size=settings.world_size
    )
    canvas = _largest_canvas(config, settings, val_set.annotations.sizes, config.eval_batch_size)
    largest = batch_bytes(canvas, config.eval_batch_size, config.pad_size_divisor)
    return _loader(config, settings, val_set, batches, largest)


def _loader(
    config: Config,
    settings: RunSettings,
    dataset: ImageDataset,
    batches: MixedBatchSampler | ShardBatchSampler,
    largest: int,
) -> Loader:
    """largest: bytes of its largest batch."""
    return Loader(
        dataset,
        batches,
        collate=Collate(config.pad_size_divisor),
        workers=affordable_workers(settings.num_workers, largest, settings.ranks_here),
        pin_memory=settings.pin_memory,
    )
