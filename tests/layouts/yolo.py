"""YOLO's text files as Ultralytics, Roboflow, CVAT, Label Studio, FiftyOne, LabelImg and Darknet do."""

from pathlib import Path

from tests.layouts.drawn import CLASSES, SPLITS, Drawn, of_split

NAMES = "\n".join(CLASSES) + "\n"


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def rows(image: Drawn) -> str:
    height, width = image.size
    return "".join(
        f"{CLASSES.index(name)} {(x + w / 2) / width:.8f} {(y + h / 2) / height:.8f} "
        f"{w / width:.8f} {h / height:.8f}\n"
        for name, x, y, w, h in image.boxes
    )


def put(images: list[Drawn], folder: Path, labels: Path, stem: str = "{stem}") -> list[str]:
    """Images in one folder and their boxes in another; the names of the images."""
    names = [stem.format(stem=image.stem, digit=image.stem[-1]) for image in images]
    for image, name in zip(images, names, strict=True):
        image.save(folder / f"{name}.png")
        text(labels / f"{name}.txt", rows(image))
    return [f"{name}.png" for name in names]


def ultralytics(root: Path) -> None:
    for split in SPLITS:
        put(of_split(split), root / "images" / split, root / "labels" / split)
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    text(root / "data.yaml", f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}")


def roboflow(root: Path, splits: tuple[str, ...] = SPLITS) -> None:
    for split in splits:
        folder = root / {"train": "train", "val": "valid"}[split]
        images = of_split(split if len(splits) > 1 else None)
        put(images, folder / "images", folder / "labels", "{stem}_png.rf.{digit}f0c")
    text(
        root / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
        f"nc: {len(CLASSES)}\nnames: {list(CLASSES)}\n\nroboflow:\n  workspace: me\n  version: 3\n",
    )


def roboflow_one(root: Path) -> None:
    """All images in training; the file names the other splits all the same."""
    roboflow(root, ("train",))


def cvat(root: Path, splits: tuple[str, ...] = SPLITS, prefix: str = "data/") -> None:
    """YOLO 1.1 of a project: lists of images, whose paths begin above the export."""
    subsets = {"train": "train", "val": "valid"}
    said = [f"classes = {len(CLASSES)}\n"]
    for split in splits:
        subset = subsets[split]
        folder = root / f"obj_{subset}_data"
        names = put(of_split(split if len(splits) > 1 else None), folder, folder)
        text(root / f"{subset}.txt", "".join(f"{prefix}{folder.name}/{name}\n" for name in names))
        said.append(f"{subset} = {prefix}{subset}.txt\n")
    text(root / "obj.names", NAMES)
    text(root / "obj.data", "".join([*said, f"names = {prefix}obj.names\n", "backup = backup/\n"]))


def cvat_task(root: Path) -> None:
    """YOLO 1.1 of a task."""
    cvat(root, ("train",))


def cvat_documented(root: Path) -> None:
    """YOLO 1.1 as CVAT's manual has it, with paths that begin in the export."""
    cvat(root, prefix="")


def cvat_ultralytics(root: Path) -> None:
    """Ultralytics YOLO of a task: a list beside the file."""
    names = put(of_split(None), root / "images" / "train", root / "labels" / "train")
    text(root / "train.txt", "".join(f"data/images/train/{name}\n" for name in names))
    numbers = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    text(root / "data.yaml", f"names:\n{numbers}path: .\ntrain: train.txt\n")


def label_studio(root: Path) -> None:
    put(of_split(None), root / "images", root / "labels", "{digit}f0c3a71-{stem}")
    text(root / "classes.txt", NAMES)
    classes = ", ".join(f'{{"id": {i}, "name": "{name}"}}' for i, name in enumerate(CLASSES))
    text(root / "notes.json", f'{{"categories": [{classes}], "info": {{"contributor": "Label Studio"}}}}')


def fiftyone(root: Path) -> None:
    """YOLOv5Dataset, with the absolute path of another machine."""
    for split in SPLITS:
        put(of_split(split), root / "images" / split, root / "labels" / split)
    numbers = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    paths = "path: /home/you/export\ntrain: ./images/train/\nval: ./images/val/\n"
    text(root / "dataset.yaml", f"names:\n{numbers}{paths}")


def labelimg(root: Path) -> None:
    """Everything in one folder."""
    put(of_split(None), root, root)
    text(root / "classes.txt", NAMES)


def darknet(root: Path) -> None:
    """Roboflow's YOLO Darknet: a folder for each split, images, boxes and names side by side."""
    for split, name in (("train", "train"), ("val", "valid")):
        put(of_split(split), root / name, root / name)
        text(root / name / "_darknet.labels", NAMES)


def lists(root: Path) -> None:
    """Lists of absolute paths of a Windows machine, and no file that names them."""
    for split in SPLITS:
        names = put(of_split(split), root / "images", root / "labels")
        lines = "".join(f"D:\\photos\\set\\images\\{name}\r\n" for name in names)
        (root / f"{split}.txt").write_bytes(lines.encode())
    text(root / "classes.txt", NAMES)
