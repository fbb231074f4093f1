"""COCO's JSON as COCO, CVAT, Label Studio, FiftyOne and Roboflow write it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.layouts.drawn import CLASSES, SPLITS, Drawn, of_split


def content(
    images: list[Drawn], names: Callable[[Drawn], str], first_id: int = 1, **per_box: Any
) -> dict[str, list]:
    """names: gives the `file_name` of an image. first_id: of images, boxes and classes alike."""
    ids = {name: first_id + i for i, name in enumerate(CLASSES)}
    annotations: list[dict] = []
    for number, image in enumerate(images, first_id):
        for name, x, y, w, h in image.boxes:
            annotations.append(
                {
                    "id": first_id + len(annotations),
                    "image_id": number,
                    "category_id": ids[name],
                    "segmentation": [],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
                | per_box
            )
    return {
        "categories": [{"id": identity, "name": name} for name, identity in ids.items()],
        "images": [
            {"id": n, "width": i.size[1], "height": i.size[0], "file_name": names(i)}
            for n, i in enumerate(images, first_id)
        ],
        "annotations": annotations,
    }


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def coco(root: Path) -> None:
    """As COCO itself."""
    for split in SPLITS:
        images = of_split(split)
        write(
            root / "annotations" / f"instances_{split}2017.json", content(images, lambda i: f"{i.stem}.png")
        )
        for image in images:
            image.save(root / f"{split}2017" / f"{image.stem}.png")


def _cvat(images: list[Drawn]) -> dict[str, Any]:
    found = content(images, lambda i: f"{i.stem}.PNG", attributes={"occluded": False, "rotation": 0.0})
    info = dict.fromkeys(("contributor", "date_created", "description", "url", "version", "year"), "")
    for image in found["images"]:
        image |= {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}
    for category in found["categories"]:
        category["supercategory"] = ""
    return {"licenses": [{"name": "", "id": 0, "url": ""}], "info": info} | found


def cvat_task(root: Path) -> None:
    """COCO 1.0 of a task: one subset, `default`."""
    images = of_split(None)
    write(root / "annotations" / "instances_default.json", _cvat(images))
    for image in images:
        image.save(root / "images" / "default" / f"{image.stem}.PNG")


def cvat_project(root: Path) -> None:
    """COCO 1.0 of a project, whose subsets the user named, with a file of skeletons."""
    for split, subset in (("train", "Train"), ("val", "Validation")):
        images = of_split(split)
        write(root / "annotations" / f"instances_{subset}.json", _cvat(images))
        write(root / "annotations" / f"person_keypoints_{subset}.json", _cvat(images[:1]))
        for image in images:
            image.save(root / "images" / subset / f"{image.stem}.PNG")


def cvat_flat(root: Path) -> None:
    """COCO 1.0 of earlier versions: all images in `images/`."""
    for split, subset in (("train", "Train"), ("val", "val")):
        images = of_split(split)
        write(root / "annotations" / f"instances_{subset}.json", _cvat(images))
        for image in images:
            image.save(root / "images" / f"{image.stem}.PNG")


def label_studio(root: Path) -> None:
    """`result.json`, ids from 0, `file_name` below `images/`, each with the upload's prefix."""
    images = of_split(None)
    found = content(images, lambda i: f"images/1f0c3a7{i.stem[-1]}-{i.stem}.png", 0, ignore=0)
    info = {"year": 2024, "version": "1.0", "description": "", "contributor": "Label Studio", "url": ""}
    write(root / "result.json", {**found, "info": info | {"date_created": "2024-05-02 10:11:12.131415"}})
    for image, entry in zip(images, found["images"], strict=True):
        image.save(root / entry["file_name"])


def _fiftyone(images: list[Drawn]) -> dict[str, Any]:
    found = content(images, lambda i: f"{i.stem}.png")
    for image in found["images"]:
        image |= {"license": None, "coco_url": None}
    for category in found["categories"]:
        category["supercategory"] = None
    info = {"year": "", "version": "", "description": "Exported from FiftyOne", "contributor": "", "url": ""}
    return {"info": info, "licenses": []} | found


def fiftyone(root: Path) -> None:
    """COCODetectionDataset of a whole set."""
    images = of_split(None)
    write(root / "labels.json", _fiftyone(images))
    for image in images:
        image.save(root / "data" / f"{image.stem}.png")


def fiftyone_splits(root: Path) -> None:
    """COCODetectionDataset of each split, as its zoo lays them out."""
    write(root / "info.json", {"name": "tiny", "zoo_dataset": "x", "parameters": None})
    for split, folder in (("train", "train"), ("val", "validation")):
        images = of_split(split)
        write(root / folder / "labels.json", _fiftyone(images))
        for image in images:
            image.save(root / folder / "data" / f"{image.stem}.png")


def _roboflow(images: list[Drawn]) -> dict[str, Any]:
    found = content(images, lambda i: f"{i.stem}_png.rf.{i.stem[-1] * 8}.png")
    root = {"id": 0, "name": "things", "supercategory": "none"}
    found["categories"] = [root, *({**c, "supercategory": "things"} for c in found["categories"])]
    for image in found["images"]:
        image |= {"license": 1, "date_captured": "2024-05-02T10:11:12+00:00", "extra": {"name": "x.png"}}
    info = {"year": "2024", "version": "3", "description": "Exported from roboflow.com", "contributor": ""}
    return {"info": info, "licenses": [{"id": 1, "url": "", "name": "CC BY 4.0"}]} | found


def roboflow(root: Path, splits: tuple[str, ...] = SPLITS) -> None:
    """A class that stands for all, with id 0 and without boxes; images beside the file."""
    for split in splits:
        images = of_split(split if len(splits) > 1 else None)
        folder = root / {"train": "train", "val": "valid"}[split]
        found = _roboflow(images)
        write(folder / "_annotations.coco.json", found)
        for image, entry in zip(images, found["images"], strict=True):
            image.save(folder / entry["file_name"])


def roboflow_one(root: Path) -> None:
    """Where all images are in the training set."""
    roboflow(root, ("train",))


def one_json(root: Path) -> None:
    """A file of any name beside its images, and files of other kinds."""
    images = of_split(None)
    write(root / "my shop.json", content(images, lambda i: f"{i.stem}.png"))
    write(root / "notes.json", {"images": []})
    write(root / "tasks.json", [{"id": 1, "annotations": []}])
    for image in images:
        image.save(root / f"{image.stem}.png")
