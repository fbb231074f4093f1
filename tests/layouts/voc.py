"""Pascal VOC's XML files as VOC, LabelImg, CVAT, Roboflow and FiftyOne write them."""

from pathlib import Path

from tests.layouts.drawn import SPLITS, Drawn, of_split
from tests.layouts.yolo import text

DEVKIT = "<source><database>The VOC2007 Database</database><annotation>PASCAL VOC2007</annotation></source>"
UNKNOWN = "<source>\n\t\t<database>Unknown</database>\n\t</source>"


def xml(image: Drawn, filename: str, source: str, form: str = "{:.0f}", first: int = 0, **flags: str) -> str:
    """first: the number of the first pixel, whose boxes end with their last pixel."""
    objects = ""
    for number, (name, x, y, w, h) in enumerate(image.boxes):
        corners = zip(("xmin", "ymin", "xmax", "ymax"), (x + first, y + first, x + w, y + h), strict=True)
        box = "".join(f"\t\t\t<{key}>{form.format(value)}</{key}>\n" for key, value in corners)
        difficult = flags.get("difficult", "0") if number == 0 else "0"
        objects += (
            f"\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
            f"\t\t<difficult>{difficult}</difficult>\n\t\t<bndbox>\n{box}\t\t</bndbox>\n\t</object>\n"
        )
    height, width = image.size
    return (
        f"<annotation>\n\t<folder>shop</folder>\n\t<filename>{filename}</filename>\n\t{source}\n"
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def devkit(root: Path, source: str = DEVKIT, **flags: str) -> None:
    """The files of one year: pixels from 1, lists of every split and class."""
    for split in SPLITS:
        images = of_split(split)
        for image in images:
            image.save(root / "JPEGImages" / f"{image.stem}.png")
            content = xml(image, f"{image.stem}.png", source, first=1, **flags)
            text(root / "Annotations" / f"{image.stem}.xml", content)
        lists = root / "ImageSets" / "Main"
        text(lists / f"{split}.txt", "".join(f"{image.stem}\n" for image in images))
        text(lists / f"cup_{split}.txt", "".join(f"{image.stem}  1\n" for image in images))
    text(lists / "trainval.txt", "".join(f"{image.stem}\n" for image in of_split(None)))


def downloaded(root: Path) -> None:
    """As the archive of a year unpacks."""
    devkit(root / "VOCdevkit" / "VOC2007")


def cvat(root: Path, splits: tuple[tuple[str | None, str], ...] = ((None, "default"),)) -> None:
    """PASCAL VOC 1.1: a list for each subset, fractions of pixels, no XML file for an image without boxes."""
    for split, subset in splits:
        images = of_split(split)
        for image in images:
            image.save(root / "JPEGImages" / f"{image.stem}.png")
            if image.boxes:
                content = xml(image, f"{image.stem}.png", UNKNOWN, "{:.2f}")
                text(root / "Annotations" / f"{image.stem}.xml", content)
        text(root / "ImageSets" / "Main" / f"{subset}.txt", "".join(f"{i.stem}\n" for i in images))
    text(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncup:128,0,0::\n")


def cvat_project(root: Path) -> None:
    cvat(root, (("train", "Train"), ("val", "Validation")))


def roboflow(root: Path) -> None:
    """Files beside the images of each split."""
    source = "<source><database>roboflow.com</database></source>"
    for split, folder in (("train", "train"), ("val", "valid")):
        for image in of_split(split):
            name = f"{image.stem}_png.rf.{image.stem[-1] * 8}"
            image.save(root / folder / f"{name}.png")
            text(root / folder / f"{name}.xml", xml(image, f"{name}.png", source))
        text(root / folder / "README.roboflow.txt", "Exported from roboflow.com\n")


def labelimg(root: Path) -> None:
    """Files beside the images."""
    for image in of_split(None):
        image.save(root / f"{image.stem}.png")
        path = f"<path>C:\\shop\\{image.stem}.png</path>"
        text(root / f"{image.stem}.xml", xml(image, f"{image.stem}.png", path + UNKNOWN))


def fiftyone(root: Path) -> None:
    """VOCDetectionDataset."""
    for image in of_split(None):
        image.save(root / "data" / f"{image.stem}.png")
        source = f"<path>/x/{image.stem}.png</path><source><database></database></source>"
        text(root / "labels" / f"{image.stem}.xml", xml(image, f"{image.stem}.png", source))


def fiftyone_splits(root: Path) -> None:
    for split, folder in (("train", "train"), ("val", "validation")):
        for image in of_split(split):
            image.save(root / folder / "data" / f"{image.stem}.png")
            source = "<source><database></database></source>"
            text(root / folder / "labels" / f"{image.stem}.xml", xml(image, f"{image.stem}.png", source))


def label_studio(root: Path) -> None:
    source = "<source><database>MyDatabase</database><annotation>COCO2017</annotation></source>"
    for image in of_split(None):
        image.save(root / "images" / f"1f0c3a7{image.stem[-1]}-{image.stem}.png")
        name = f"1f0c3a7{image.stem[-1]}-{image.stem}"
        text(root / "Annotations" / f"{name}.xml", xml(image, f"{name}.png", source))
