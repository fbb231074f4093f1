"""Config -> datasets and loaders. The only file of this package that sees the config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from datasets.annotations.categories import ClassTable
from datasets.annotations.discovery import open_detection, open_image_level
from datasets.annotations.table import AnnotationTable
from datasets.augment.mosaic import Mosaic
from datasets.augment.policy import EvalPolicy, TrainPolicy
from datasets.detection import DetectionDataset
from datasets.image_level import ImageLevel
from datasets.loader import Collate, Loader, ShardBatchSampler
from datasets.sampling.aspect import AspectGroupedSampler, aspects_of
from datasets.sampling.mixing import MixedBatchSampler, MixRatio, MultiDataset
from datasets.sampling.samplers import (
    ClassAwareSampler,
    RepeatFactorSampler,
    ShardedSampler,
    ShuffledSampler,
    repeat_factors,
)
from util.errors import UserError
from util.logging import get_logger


@dataclass(frozen=True)
class RunSettings:
    """What the command line and the process decide, as opposed to the config.

    data_path:    folder that holds `lvis_v1/` (or `coco/`) and `imagenet-lvis/`, or the LVIS folder itself.
    dataset_file: 'lvis', 'lvis_openvocab' (no rare boxes in training) or 'coco'.
    seed:         fixes every order and every augmentation.
    rank, world_size: of this process.
    num_workers:  reading processes per loader; results do not depend on it.
    fix_size:     every image gets one size (`--fix_size`).
    pin_memory:   for training on a GPU.
    """

    data_path: str
    dataset_file: str = "lvis"
    seed: int = 42
    rank: int = 0
    world_size: int = 1
    num_workers: int = 0
    fix_size: bool = False
    pin_memory: bool = False


@dataclass(frozen=True)
class DataParts:
    """Everything a run needs of the data.

    classes:         the columns of the model; counts and frequencies of the box-annotated training file.
    val_loader:      each validation image once over all ranks.
    val_annotations: for the evaluator.
    val_set:         dataset behind `val_loader`.
    train_loader, train_set, image_level_set: None where they are not asked for.
    """

    classes: ClassTable
    val_loader: Loader
    val_annotations: AnnotationTable
    val_set: DetectionDataset
    train_loader: Loader | None = None
    train_set: DetectionDataset | None = None
    image_level_set: ImageLevel | None = None


def build_datasets(
    config: Any, settings: RunSettings, *, train: bool = True, class_names: Sequence[str] | None = None
) -> DataParts:
    """Datasets and loaders of a run.

    config: has the data keys (`num_classes`, `batch_size`, `data_aug_*`, `use_rfs`, `use_imagenet`,
        `mosaic_*` ...).
    train: False reads the validation data only; class counts are then those of the validation file.
    class_names: a checkpoint's class list, which gives the order of the columns.
    Raises UserError for whatever the user can mend.
    """
    val_annotations, val_images = open_detection(settings.data_path, "val", settings.dataset_file)
    train_annotations = None
    if train:
        train_annotations, train_images = open_detection(settings.data_path, "train", settings.dataset_file)
        _check_same_classes(train_annotations, val_annotations)
    categories = (val_annotations if train_annotations is None else train_annotations).categories
    classes = ClassTable.from_categories(categories, class_names)
    classes.check_num_classes(config.num_classes)
    val_set = DetectionDataset(
        val_annotations,
        val_images,
        classes,
        _eval_policy(config, settings),
        seed=settings.seed,
        strict=True,
        draft=config.decode_draft,
    )
    parts = {
        "classes": classes,
        "val_annotations": val_annotations,
        "val_set": val_set,
        "val_loader": _val_loader(config, settings, val_set),
    }
    if train_annotations is None:
        return DataParts(**parts)
    train_set = DetectionDataset(
        train_annotations,
        train_images,
        classes,
        _train_policy(config, settings),
        seed=settings.seed,
        rare=settings.dataset_file != "lvis_openvocab",
        draft=config.decode_draft,
    )
    if settings.dataset_file == "lvis_openvocab" and not any(classes.frequencies):
        raise UserError(f"lvis_openvocab: the categories of {train_annotations.name} have no `frequency`")
    if not len(train_set.boxes):
        raise UserError(f"{train_annotations.name}: has no box that can be learned from")
    image_level = _image_level(config, settings, classes, train_annotations) if config.use_imagenet else None
    return DataParts(
        **parts,
        train_loader=_train_loader(config, settings, train_set, image_level),
        train_set=train_set,
        image_level_set=image_level,
    )


def _check_same_classes(train: AnnotationTable, val: AnnotationTable) -> None:
    ours, theirs = ({c.name for c in store.categories} for store in (train, val))
    if unknown := sorted(theirs - ours):
        raise UserError(f"class {unknown[0]!r} of {val.name} is not in {train.name} ({len(unknown)} such)")


def _train_policy(config: Any, settings: RunSettings) -> TrainPolicy:
    return TrainPolicy(
        scales=tuple(config.data_aug_scales),
        max_size=config.data_aug_max_size,
        crop_resize=tuple(config.data_aug_scales2_resize),
        crop_sides=tuple(config.data_aug_scales2_crop),
        fixed_size=settings.fix_size,
        color_jitter=config.color_jitter,
    )


def _eval_policy(config: Any, settings: RunSettings) -> EvalPolicy:
    return EvalPolicy(max(config.data_aug_scales), config.data_aug_max_size, fixed_size=settings.fix_size)


def _image_level(
    config: Any, settings: RunSettings, classes: ClassTable, detection: AnnotationTable
) -> ImageLevel:
    annotations, images = open_image_level(settings.data_path, config.imagenet_path)
    mosaic = None
    if config.imagenet_use_mosaic:
        mosaic = Mosaic(config.mosaic_size, tuple(config.mosaic_centre), config.mosaic_fill)
    return ImageLevel(
        annotations,
        images,
        classes,
        detection.categories,
        _train_policy(config, settings),
        mosaic=mosaic,
        seed=settings.seed,
        draft=config.decode_draft,
    )


def _sampler(config: Any, settings: RunSettings, train_set: DetectionDataset) -> ShardedSampler:
    shard = {"seed": settings.seed, "rank": settings.rank, "world_size": settings.world_size}
    boxes, images = train_set.boxes, len(train_set)
    if config.use_cas:
        return ClassAwareSampler(boxes.image_index, boxes.labels, images, **shard)
    if config.use_rfs:
        classes = int(boxes.labels.max()) + 1
        factors = repeat_factors(boxes.image_index, boxes.labels, images, classes, config.rfs_repeat_sh)
        return RepeatFactorSampler(factors, **shard)
    return ShuffledSampler(images, **shard)


def _train_loader(
    config: Any, settings: RunSettings, train_set: DetectionDataset, image_level: ImageLevel | None
) -> Loader:
    sampler = _sampler(config, settings, train_set)
    if config.group_by_aspect:
        aspects = aspects_of(train_set.annotations.sizes)
        sampler = AspectGroupedSampler(sampler, aspects, config.batch_size)
    batches = MixedBatchSampler(
        sampler,
        config.batch_size,
        sub=len(image_level) if image_level is not None else 0,
        sub_batch_size=config.sub_batch_size or config.batch_size,
        turns=MixRatio(config.main_weight, config.sub_weight),
    )
    if not len(batches):
        needed = config.batch_size * settings.world_size
        raise UserError(
            f"an epoch has {sampler.length} images, fewer than one batch of {needed} over all processes: "
            "lower batch_size"
        )
    get_logger().info(
        "an epoch is %d box-annotated and %d image-level batches per process",
        batches.main_batches,
        batches.sub_batches,
    )
    sets: list[Dataset] = [train_set] if image_level is None else [train_set, image_level]
    return _loader(config, settings, MultiDataset(sets), batches)


def _val_loader(config: Any, settings: RunSettings, val_set: DetectionDataset) -> Loader:
    shard = {"rank": settings.rank, "world_size": settings.world_size}
    return _loader(
        config, settings, val_set, ShardBatchSampler(len(val_set), config.eval_batch_size, **shard)
    )


def _loader(
    config: Any, settings: RunSettings, dataset: Dataset, batches: MixedBatchSampler | ShardBatchSampler
) -> Loader:
    return Loader(
        dataset,
        batches,
        collate=Collate(config.pad_size_divisor),
        workers=settings.num_workers,
        pin_memory=settings.pin_memory,
    )
