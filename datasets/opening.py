"""From the paths of `--data_path` to box-annotated tables and their images, several data sets as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from datasets.annotations.categories import Category
from datasets.annotations.class_edits import ClassEdits, edited, kept
from datasets.annotations.class_union import ClassNames, ClassUnion, unite_classes
from datasets.annotations.discovery import (
    VAL_SHARE,
    find_detection,
    find_image_level,
    find_split,
    folder_of,
    missing_split,
    open_source,
)
from datasets.annotations.frequency import COMMON, RARE, with_frequencies
from datasets.annotations.source import AnnotationSource
from datasets.annotations.split_file import Split, SplitFile
from datasets.annotations.splitting import divide
from datasets.annotations.table import AnnotationTable
from datasets.annotations.union import NamedTable, Part, unite
from datasets.images.folders import ImageFolders, Images
from datasets.images.reader import ImageFolder
from util.errors import UserError, nearest
from util.logging import get_logger


@dataclass(frozen=True)
class DataRequest:
    """Which data is read, and as which classes.

    data_path:    of each data set.
    dataset_file: 'lvis', 'lvis_openvocab' or 'coco'.
    edits:        of the class list.
    class_names:  of the sets' classes in the union, as training found them; empty: they are matched.
    trained:      class names of the model to evaluate; empty in training.
    labelled:     set -> the classes that were looked for in its images, by its own names; all where it is not
        named.
    split:        how data without a validation split is divided; None: it is not.
    allow_outside: as in `open_detection`.
    need_images:  False opens annotations too whose images are gone.
    """

    data_path: tuple[str, ...]
    dataset_file: str = "lvis"
    edits: ClassEdits = field(default_factory=ClassEdits)
    class_names: ClassNames = field(default_factory=dict)
    trained: tuple[str, ...] = ()
    labelled: Mapping[str, Sequence[str]] = field(default_factory=dict)
    split: SplitFile | None = None
    allow_outside: bool = False
    need_images: bool = True


@dataclass(frozen=True)
class OpenedSplit:
    """One split. paths: the file or folder that holds the annotations, of each set.

    parts: the sets that were united; empty for a single one.
    """

    table: AnnotationTable
    images: Images
    paths: tuple[Path, ...]
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class OpenedSet:
    """One data set, None for a split that it lacks or that was not asked for.

    divided: as in `DetectionData`; empty where it has two splits.
    """

    name: str
    train: OpenedSplit | None
    val: OpenedSplit | None
    divided: Mapping[str, Split] = field(default_factory=dict)

    @property
    def splits(self) -> list[OpenedSplit]:
        return [split for split in (self.train, self.val) if split is not None]


@dataclass(frozen=True)
class DetectionData:
    """train: every class has a frequency. None where it was not asked for.

    categories: before `ClassEdits.classes` left some out; image-level classes are matched to them.
    union: how the classes of several sets became one list; None for a single one.
    divided: what became of the images of sets without a validation split, by their keys in the request.
    """

    train: OpenedSplit | None
    val: OpenedSplit
    categories: tuple[Category, ...]
    union: ClassUnion | None = None
    divided: Mapping[str, Split] = field(default_factory=dict)


def paths_of(data_path: str | Sequence[str]) -> tuple[str, ...]:
    """The paths of one data set, written as a string, or of several."""
    return (data_path,) if isinstance(data_path, str) else tuple(data_path)


def open_detection_data(request: DataRequest, *, train: bool = True) -> DetectionData:
    """The splits of the data, with the same classes.

    Raises UserError as `find_detection` and `ClassEdits` do, for a class of the validation data that training
    lacks, and for sets of which none has validation data, or all where they are to be divided.
    """
    names = set_names(request.data_path)
    sets = [
        _open_set(name, path, request, train) for name, path in zip(names, request.data_path, strict=True)
    ]
    divided = {key: split for opened in sets for key, split in opened.divided.items()}
    if request.split is not None and not divided:
        _refuse_share(sets[0], request, train)
    if not request.trained:
        _check_labelled(sets, request.labelled)
    sets = _edited(sets, request)
    for opened in sets:
        _check_same_classes(opened)
    data = _single(sets[0], request) if len(sets) == 1 else _united(sets, request)
    return replace(data, divided=divided)


def open_labelled_images(
    paths: Sequence[str], imagenet_path: str = "", *, allow_outside: bool = False
) -> tuple[AnnotationTable, ImageFolder]:
    """The images that have a label but no boxes. Arguments and errors as in `find_labelled_images`."""
    source = find_labelled_images(paths, imagenet_path)
    return open_source(source, None if allow_outside else folder_of(source.path))


def find_labelled_images(paths: Sequence[str], imagenet_path: str = "") -> AnnotationSource:
    """The images that have a label but no boxes, which one of the data sets may have beside it.

    Raises UserError as `find_image_level` does, and where more than one set has some.
    """
    found: dict[Path, str] = {}
    for path in paths if len(paths) > 1 and not imagenet_path else ():
        with suppress(UserError):
            found.setdefault(find_image_level(path).path.resolve(), path)
    if len(found) > 1:
        folders = " and ".join(str(folder_of(place)) for place in found)
        raise UserError(f"image-level data in {folders}: set imagenet_path to one of them")
    return find_image_level(next(iter(found.values()), paths[0]), imagenet_path)


def _with_frequencies(train: OpenedSplit) -> OpenedSplit:
    """The split with a frequency for every class; logs the groups where the file does not state them all."""
    table = replace(train.table, categories=with_frequencies(train.table.categories))
    if not all(c.frequency for c in train.table.categories):
        groups = Counter(c.frequency for c in table.categories)
        get_logger().info(
            "%s: groups by training images: %d rare classes (up to %d), %d common (up to %d), %d frequent",
            table.name, groups["r"], RARE, groups["c"], COMMON, groups["f"],
        )  # fmt: skip
    return replace(train, table=table)


def set_names(paths: Sequence[str]) -> list[str]:
    """A name for each data set: its folder's, with the folders above as far as that tells them apart.

    Files of one folder are called by their own names. Raises UserError for a path that is there twice.
    """
    real = [Path(path).resolve() for path in paths]
    if repeated := [path for path, count in Counter(real).items() if count > 1]:
        raise UserError(f"--data_path names {repeated[0]} twice")
    folders = [folder_of(path) for path in real]
    parts = [
        (folder if folders.count(folder) == 1 else path.with_suffix("")).parts
        for folder, path in zip(folders, real, strict=True)
    ]
    names: list[str] = []
    for own in parts:
        others = [other for other in parts if other != own]
        depth = 1
        while depth < len(own) and any(other[-depth:] == own[-depth:] for other in others):
            depth += 1
        name = "-".join(own[-depth:]).replace("/", "")
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names


def _open_set(name: str, path: str, request: DataRequest, train: bool) -> OpenedSet:
    several = len(request.data_path) > 1
    inside = None if request.allow_outside else folder_of(path)

    def opened(split: str, required: bool) -> OpenedSplit | None:
        find = find_detection if required else find_split
        source = find(path, split, request.dataset_file)
        if source is None:
            return None
        try:
            table, images = open_source(source, inside)
        except UserError:
            if request.need_images:
                raise
            table, images = source.read(), ImageFolder(folder_of(path))
        if several:
            table = replace(table, name=f"{name}: {table.name}")
        if name in request.labelled:
            table = _with_labelled(table, request.labelled[name])
        return OpenedSplit(table, images, (source.path,))

    val = opened("val", required=False)
    if val is None and request.split is not None:
        whole = opened("train", required=True)
        assert whole is not None and isinstance(whole.images, ImageFolder)  # find_detection raises
        key = request.split.key_of(name, alone=not several)
        parts = divide(key, whole.table, whole.images, request.split)
        return OpenedSet(
            name,
            replace(whole, table=parts.train) if train else None,
            replace(whole, table=parts.val),
            {key: parts.split},
        )
    if val is None and not several:
        raise UserError(missing_split(path, "val", request.dataset_file))
    return OpenedSet(name, opened("train", required=True) if train else None, val)


def _with_labelled(table: AnnotationTable, names: Sequence[str]) -> AnnotationTable:
    """Classes that one split lacks may be the other's."""
    index_of = {c.name: index for index, c in enumerate(table.categories)}
    return table.with_judged([index_of[name] for name in names if name in index_of])


def _check_labelled(sets: Sequence[OpenedSet], labelled: Mapping[str, Sequence[str]]) -> None:
    by_name = {opened.name: _names([opened]) for opened in sets}
    for name, classes in labelled.items():
        if name not in by_name:
            known = ", ".join(by_name)
            raise UserError(
                f"labelled_classes: there is no data set {name!r}, but {known}.{nearest(name, by_name)}"
            )
        for missing in sorted(set(classes) - by_name[name]):
            raise UserError(
                f"labelled_classes: {name!r} has no class {missing!r}.{nearest(missing, by_name[name])}"
            )


def _refuse_share(opened: OpenedSet, request: DataRequest, train: bool) -> None:
    """Raises UserError for a share that does nothing in training.

    An evaluation on other data than that of training has it from the checkpoint, and logs that only.
    """
    assert request.split is not None and opened.val is not None
    problem = (
        f"val_share={request.split.val_share:g} divides data without a validation split, and "
        f"{request.data_path[0]} has one ({opened.val.paths[0]})"
    )
    if train:
        raise UserError(f"{problem}: set val_share=0")
    get_logger().info("%s: it is evaluated", problem)


def _edited(sets: Sequence[OpenedSet], request: DataRequest) -> list[OpenedSet]:
    """The sets after merging and renaming."""
    edits = request.edits
    edits.check_sources(_names(sets), request.trained)

    def after(split: OpenedSplit | None) -> OpenedSplit | None:
        return None if split is None else replace(split, table=edited(split.table, edits))

    return [replace(opened, train=after(opened.train), val=after(opened.val)) for opened in sets]


def _names(sets: Sequence[OpenedSet]) -> set[str]:
    return {c.name for opened in sets for split in opened.splits for c in split.table.categories}


def _check_same_classes(opened: OpenedSet) -> None:
    if opened.train is None or opened.val is None:
        return
    train, val = opened.train.table, opened.val.table
    train_names, val_names = ({c.name for c in table.categories} for table in (train, val))
    if unknown := sorted(val_names - train_names):
        raise UserError(f"class {unknown[0]!r} of {val.name} is not in {train.name} ({len(unknown)} such)")


def _single(opened: OpenedSet, request: DataRequest) -> DetectionData:
    assert opened.val is not None  # find_detection raises
    train, val = opened.train, opened.val
    categories = (train or val).table.categories
    if names := request.edits.classes:
        request.edits.check_kept({c.name for c in categories}, request.trained)
        train = train and replace(train, table=kept(train.table, names))
        val = replace(val, table=kept(val.table, names))
    return DetectionData(train and _with_frequencies(train), val, categories)


def _united(sets: Sequence[OpenedSet], request: DataRequest) -> DetectionData:
    if all(opened.val is None for opened in sets):
        raise UserError(
            f"--data_path: none of {', '.join(o.name for o in sets)} has a validation split; {VAL_SHARE}"
        )
    for opened in sets:
        if opened.val is None:
            get_logger().warning(
                "%s has no validation split: the others are evaluated; %s", opened.name, VAL_SHARE
            )
    training = {opened.name: opened.train for opened in sets if opened.train is not None}
    validation = {opened.name: opened.val for opened in sets if opened.val is not None}
    known = {} if training else request.class_names
    own = {name: split.table.categories for name, split in (training or validation).items()}
    classes = unite_classes(own, known)
    categories = classes.categories
    if names := request.edits.classes:
        request.edits.check_kept({c.name for c in categories}, request.trained)
        classes = classes.only(names)
    train = _with_frequencies(_united_split(training, classes)) if training else None
    return DetectionData(train, _united_split(validation, classes), categories, classes)


def _united_split(splits: Mapping[str, OpenedSplit], classes: ClassUnion) -> OpenedSplit:
    names = classes.class_names
    union = unite([NamedTable(name, kept(s.table, names[name])) for name, s in splits.items()], classes)
    images = ImageFolders({name: split.images for name, split in splits.items()})
    return OpenedSplit(
        union.table, images, tuple(p for split in splits.values() for p in split.paths), union.parts
    )
