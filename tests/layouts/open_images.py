"""Open Images' CSV files as its site and FiftyOne lay them out."""

from pathlib import Path

from PIL import Image

from tests.layouts.drawn import CLASSES, Drawn, of_split
from tests.layouts.yolo import text

LABELS = ("/m/02p5f1q", "/m/02zt3", "/m/02s195")
BOXES_HEAD = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)


def identity(image: Drawn) -> str:
    return f"{int(image.stem[-1]) + 0xA0F3:016x}"


def save(image: Drawn, folder: Path) -> None:
    """Without loss, whatever the name says."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.pixels).save(folder / f"{identity(image)}.jpg", "PNG")


def boxes(images: list[Drawn], *, clicks: bool = False, group: str = "0") -> str:
    """clicks: with the columns of training that only V6 and later have. group: IsGroupOf of each."""
    more = ",XClick1X,XClick2X" if clicks else ""
    rows = [BOXES_HEAD + more]
    for image in images:
        height, width = image.size
        for name, x, y, w, h in image.boxes:
            sides = (x / width, (x + w) / width, y / height, (y + h) / height)
            corners = ",".join(f"{side:.6f}" for side in sides)
            label = LABELS[CLASSES.index(name)]
            rows.append(f"{identity(image)},xclick,{label},1,{corners},0,0,{group},0,0" + ",0.5,0.6" * clicks)
    return "\n".join(rows) + "\n"


def verified(images: list[Drawn]) -> str:
    """Every class of every image, and one that has no boxes in Open Images."""
    rows = ["ImageID,Source,LabelName,Confidence"]
    for image in images:
        shown = {name for name, *_ in image.boxes}
        for label, name in zip(LABELS, CLASSES, strict=True):
            rows.append(f"{identity(image)},verification,{label},{int(name in shown)}")
        rows.append(f"{identity(image)},verification,/m/0sky,1")
    return "\n".join(rows) + "\n"


CLASS_NAMES = "".join(f"{label},{name}\n" for label, name in zip(LABELS, CLASSES, strict=True))


def official(root: Path) -> None:
    """As downloaded: CSV files of each split in one folder, without those that say nothing of boxes."""
    text(root / "class-descriptions-boxable.csv", CLASS_NAMES)
    for split, prefix, name in (("train", "oidv6-", "train"), ("val", "", "validation")):
        images = of_split(split)
        text(root / f"{prefix}{name}-annotations-bbox.csv", boxes(images, clicks=split == "train"))
        text(root / f"{name}-annotations-human-imagelabels-boxable.csv", verified(images))
        for image in images:
            save(image, root / name)


def fiftyone(root: Path) -> None:
    """As FiftyOne downloads it."""
    for split, name in (("train", "train"), ("val", "validation")):
        images = of_split(split)
        text(root / name / "labels" / "detections.csv", boxes(images))
        text(root / name / "labels" / "classifications.csv", verified(images))
        text(root / name / "metadata" / "classes.csv", CLASS_NAMES)
        for image in images:
            save(image, root / name / "data")
            save(image, root / name / "labels" / "masks" / "0")
