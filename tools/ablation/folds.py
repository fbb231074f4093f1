"""Training and validation images of a small data set in k folds, near-duplicates together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotations.discovery import find_detection, folder_of, open_detection
from datasets.annotations.frequency import group_of
from datasets.annotations.json_reader import read_annotations
from datasets.annotations.json_source import JsonSource
from datasets.annotations.splitting import classes_of_units
from datasets.annotations.stratify import UNDECIDED, stratify
from datasets.annotations.table import AnnotationTable, count_images
from datasets.columns import Ragged, offsets_of
from datasets.opening import find_labelled_images
from tools.ablation.near_duplicates import near_duplicates
from util.errors import UserError
from util.files import atomic_write, writing

# In no fold: always for training.
ALWAYS_TRAIN = 0


def make_folds(data: Path, count: int, output: Path) -> dict[int, Path]:
    """Fold 1..count -> its data folder below `output`, in which that fold is for validation.

    Each class has its share in every fold as far as groups of near-duplicates allow. A group with a class
    that no other group has is for training in all of them. `frequency` is that of the given training split.
    Folders that are there already stay as long as the annotations do.
    Those that are damaged are made again.
    Raises UserError for data that is no JSON in LVIS's or COCO's form, or whose images are in archives.
    """
    folders = {fold: output / f"fold-{fold}" for fold in range(1, count + 1)}
    contents, files, digest = _read(data)
    record = output / "folds.json"
    if all(folder.is_dir() for folder in folders.values()) and _made_of(record) == [digest, count]:
        return folders
    whole = _united(contents, files)
    _write(output / "whole.json", whole)
    table = read_annotations(output / "whole.json")
    names = [str(image.get("source_file", "")) for content in contents for image in content["images"]]
    groups = near_duplicates(files, names)
    fold_of_image = assign_folds(table, groups, count)
    labelled = None
    with suppress(UserError):  # a grid may need none
        labelled = folder_of(find_labelled_images([str(data)]).path)
    for fold, folder in folders.items():
        _write_fold(folder, whole, fold_of_image == fold)
        if labelled is not None:
            _link(folder / "imagenet-lvis", labelled)
    rows = zip(whole["images"], groups.tolist(), fold_of_image.tolist(), strict=True)
    images = [{"file": i["file_name"], "group": group, "fold": fold} for i, group, fold in rows]
    _write(record, {"of": [digest, count], "images": images})
    return folders


def _made_of(record: Path) -> Any:
    """The digest and the count that folds were made of; None where that cannot be told."""
    try:
        return json.loads(record.read_bytes())["of"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def assign_folds(table: AnnotationTable, groups: np.ndarray, count: int) -> np.ndarray:
    """(I,) int64 fold 1..count of each image, or ALWAYS_TRAIN. groups: (I,) 0..U-1, which stay together.

    Raises UserError where there are fewer groups than folds.
    """
    sizes = np.bincount(groups)
    classes = classes_of_units(table, groups, len(sizes))
    num_classes = len(table.categories) + 1
    fold_of_group = np.full(len(sizes), ALWAYS_TRAIN)
    alone = np.bincount(classes.values, minlength=num_classes)[classes.values] == 1
    left = np.setdiff1d(np.arange(len(sizes)), classes.row_of_value[alone])
    if len(left) < count:
        raise UserError(
            f"folds={count}: the data has {len(left)} groups of images that may be validated on, one for a "
            "fold at least"
        )
    for fold in range(1, count):
        part = stratify(
            _rows(classes, left),
            num_classes,
            sizes[left],
            1 / (count - fold + 1),
            np.full(len(left), UNDECIDED),
        )
        fold_of_group[left[part]] = fold
        left = left[~part]
    fold_of_group[left] = count
    return fold_of_group[groups]


def _rows(lists: Ragged, rows: np.ndarray) -> Ragged:
    chosen = [lists[row] for row in rows.tolist()]
    return Ragged(np.concatenate(chosen), offsets_of(np.array([len(row) for row in chosen])))


def _read(data: Path) -> tuple[list[dict[str, Any]], list[Path], str]:
    """The JSON of both splits, the file of each of their images, and a digest of it all."""
    digest, contents, files = hashlib.sha256(), [], []
    for split in ("train", "val"):
        source = find_detection(data, split)
        if not isinstance(source, JsonSource):
            raise UserError(f"{source.path}: folds need JSON in the form of LVIS or COCO")
        # What cannot be read is named by the reader.
        _, folder = open_detection(data, split, allow_outside=True)
        table = source.read()
        text = source.path.read_bytes()
        digest.update(text)
        content = {"annotations": [], **json.loads(text)}
        name_of = {int(i): table.file_names[row] for row, i in enumerate(table.image_ids)}
        for image in content["images"]:
            file = folder.file_of(name_of[int(image["id"])])
            if file is None:
                raise UserError(
                    f"{folder.no_such(name_of[int(image['id'])])}: folds need files, not archives"
                )
            files.append(file.resolve())
        contents.append(content)
    train, val = ({c["id"]: c["name"] for c in content["categories"]} for content in contents)
    if train != val:
        raise UserError(f"{data}: training and validation data have other categories: folds need the same")
    return contents, files, digest.hexdigest()


def _united(contents: Sequence[dict[str, Any]], files: Sequence[Path]) -> dict[str, Any]:
    """Both splits as one, with ids of its own: those of the two files may be the same."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for content in contents:
        # Ids may be text, as the reader takes them.
        new_id = {int(image["id"]): number for number, image in enumerate(content["images"], len(images) + 1)}
        kept = ({k: v for k, v in image.items() if k != "coco_url"} for image in content["images"])
        images += [
            {**image, "id": number, "file_name": str(files[number - 1])}
            for number, image in enumerate(kept, len(images) + 1)
        ]
        # The reader leaves out those of images that are not listed, and has said so.
        listed = (a for a in content["annotations"] if int(a["image_id"]) in new_id)
        annotations += [
            {**a, "id": number, "image_id": new_id[int(a["image_id"])]}
            for number, a in enumerate(listed, len(annotations) + 1)
        ]
    return {"images": images, "annotations": annotations, "categories": _categories(contents[0])}


def _categories(train: dict[str, Any]) -> list[dict[str, Any]]:
    """With the frequency that the training split gives them, so that groups are alike in all folds."""
    images_of: dict[int, set[int]] = {}
    for annotation in train["annotations"]:
        images_of.setdefault(int(annotation["category_id"]), set()).add(annotation["image_id"])
    return [
        {**c, "frequency": group_of(c.get("frequency", ""), len(images_of.get(int(c["id"]), ())))}
        for c in train["categories"]
    ]


def _write_fold(folder: Path, whole: dict[str, Any], is_val: np.ndarray) -> None:
    for split, keep in (("train", ~is_val), ("val", is_val)):
        images = [image for image, kept in zip(whole["images"], keep, strict=True) if kept]
        ids = {image["id"] for image in images}
        annotations = [a for a in whole["annotations"] if a["image_id"] in ids]
        content = {**whole, "images": images, "annotations": annotations}
        path = folder / "lvis_v1" / "annotations" / f"lvis_v1_{split}.json"
        _write(path, content)
        if split == "train":
            table = read_annotations(path)
            counts = count_images(table.category_index, table.image_index, len(table.categories)).tolist()
            known = dict(zip(table.category_ids.tolist(), counts, strict=True))
            categories = [{**c, "image_count": known.get(c["id"], 0)} for c in whole["categories"]]
            whole = {**whole, "categories": categories}
            _write(path, {**content, "categories": categories})


def _write(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path, durable=False) as file:
        json.dump(content, file)


def _link(path: Path, target: Path) -> None:
    """Raises UserError where something else is at `path`."""
    with writing(path):
        path.unlink(missing_ok=True)
        path.symlink_to(target.resolve(), target_is_directory=True)
