"""Boxes lie on their objects in images that are stored turned, or it is said by name that they may not."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from config.schema import Config
from datasets.annotations.discovery import open_image_level
from datasets.build import RunSettings, build_datasets
from datasets.images.exif import turned, turned_size
from datasets.sample import SampleIndex
from inference.inputs import read_image

UPRIGHT = (90, 150)
# Red, and its box x, y, w, h: neither in the middle nor symmetrical.
BOX = (24, 12, 50, 30)
CONFIG = Config(
    data_aug_scales=(64, 80), data_aug_max_size=128, data_aug_scales2_resize=(70,),
    data_aug_scales2_crop=(60, 70), batch_size=1, use_imagenet=False,
)  # fmt: skip
KINDS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF"}


def scene():
    pixels = np.full((*UPRIGHT, 3), 128, np.uint8)
    x, y, w, h = BOX
    pixels[y : y + h, x : x + w] = 255, 0, 0
    return Image.fromarray(pixels)


def write(path, orientation):
    """What a camera stores of the scene."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    turned(scene(), orientation, back=True).save(path, KINDS[path.suffix[1:]], exif=exif, quality=95)


def stored_box(orientation):
    """The box in the stored pixels, by turning a mask."""
    mask = np.zeros(UPRIGHT, bool)
    x, y, w, h = BOX
    mask[y : y + h, x : x + w] = True
    rows, columns = np.nonzero(np.asarray(turned(Image.fromarray(mask), orientation, back=True)))
    left, top = int(columns.min()), int(rows.min())
    return [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]


def share_of_red(pixels, box_xyxy):
    """Inside a box of an image (H, W, 3)."""
    left, top, right, bottom = (round(side) for side in box_xyxy)
    window = pixels[top:bottom, left:right].astype(int)
    return float(((window[..., 0] > 180) & (window[..., 1:] < 90).all(-1)).mean())


def shares_of_red(dataset, epochs=5):
    """Of red inside the boxes that a dataset yields; crops may leave none."""
    for epoch in range(epochs):
        for index in range(len(dataset)):
            image, target = dataset[SampleIndex(index, epoch, index)]
            height, width = target.size
            for cx, cy, w, h in target.boxes_cxcywh.tolist():
                box = (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height
                yield share_of_red(image.permute(1, 2, 0).numpy(), box)


def worst_share(folder):
    """Of the training samples, augmented, and of the validation images."""
    parts = build_datasets(CONFIG, RunSettings(str(folder)))
    (train,) = parts.train_loader.dataset.datasets
    found = [*shares_of_red(train), *shares_of_red(parts.val_loader.dataset, 1)]
    assert len(found) > 4
    return min(found)


def write_coco(folder, file, size, box):
    """Both splits with the same image."""
    height, width = size
    image = {"id": 1, "file_name": file, "height": height, "width": width}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "red"}]}
    for split in ("train", "val"):
        (folder / f"{split}.json").write_text(json.dumps(content))


ALL = pytest.mark.parametrize("orientation", range(1, 9))
ALL_KINDS = pytest.mark.parametrize("suffix", KINDS)


@ALL
@ALL_KINDS
def test_yolo_is_upright(tmp_path, orientation, suffix):
    x, y, w, h = BOX
    row = f"0 {(x + w / 2) / 150} {(y + h / 2) / 90} {w / 150} {h / 90}\n"
    for split in ("train", "val"):
        write(tmp_path / f"images/{split}/a.{suffix}", orientation)
        (tmp_path / f"labels/{split}").mkdir(parents=True)
        (tmp_path / f"labels/{split}/a.txt").write_text(row)
    (tmp_path / "data.yaml").write_text("names: [red]\ntrain: images/train\nval: images/val\n")
    assert worst_share(tmp_path) > 0.9


@ALL
@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize("upright", [True, False])
def test_coco_is_as_its_sizes_say_else_as_stored_by_name(tmp_path, orientation, suffix, upright, caplog):
    file = f"images/a.{suffix}"
    write(tmp_path / file, orientation)
    size, box = (UPRIGHT, BOX) if upright else (turned_size(UPRIGHT, orientation), stored_box(orientation))
    write_coco(tmp_path, file, size, list(box))
    caplog.set_level("INFO", "richsem")
    share = worst_share(tmp_path)
    told = orientation in (1, 5, 6, 7, 8)
    assert share > 0.9 or (upright and not told)
    caplog.clear()
    parts = build_datasets(CONFIG, RunSettings(str(tmp_path)))
    for _ in range(2):
        list(parts.val_loader)
    lines = [r.getMessage() for r in caplog.records if "orientation" in r.getMessage()]
    if orientation == 1:
        assert not lines
        return
    how = "as stored, as COCO's tools do" if not told else "upright (" if upright else "as stored, as their"
    (line,) = lines
    assert line.startswith(f"val.json: 1 images have an EXIF orientation and are read {how}")
    assert f"(first: {file})" in line


@ALL
@ALL_KINDS
def test_class_folders_and_prediction_are_upright(tmp_path, orientation, suffix):
    path = tmp_path / "red" / f"a.{suffix}"
    write(path, orientation)
    x, y, w, h = BOX
    _, images = open_image_level(tmp_path, str(tmp_path))
    for pixels in (images.read(f"red/a.{suffix}"), read_image(path)[0]):
        assert pixels.shape[:2] == UPRIGHT and share_of_red(pixels, (x, y, x + w, y + h)) > 0.9


def test_orientations_are_counted_over_loader_processes_once(tmp_path, caplog):
    caplog.set_level("INFO", "richsem")
    for i in range(6):
        write(tmp_path / f"images/{i}.jpg", 6 if i % 2 else 3)
    images = [{"id": i, "file_name": f"images/{i}.jpg", "height": 90, "width": 150} for i in range(6)]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": list(BOX)} for i in range(6)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "red"}]}
    for split in ("train", "val"):
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    parts = build_datasets(CONFIG, RunSettings(str(tmp_path), num_workers=2))
    for epoch in range(2):
        parts.train_loader.set_epoch(epoch)
        list(parts.train_loader)
    said = Counter(r.getMessage().split(" (first")[0] for r in caplog.records)
    assert said["train.json: 3 images have an EXIF orientation and are read upright"] == 1
    assert sum("orientation" in line and "3 images" in line for line in said) == 2


def test_of_a_labelled_image_without_boxes_only_the_upright_view_counts(tmp_path):
    write(tmp_path / "images/red/a.jpg", 8)
    content = {
        "images": [{"id": 1, "file_name": "red/a.jpg", "pos_category_ids": [1], "height": 150, "width": 90}],
        "categories": [{"id": 1, "name": "red"}],
    }
    (tmp_path / "imagenet_lvis_image_info.json").write_text(json.dumps(content))
    _, images = open_image_level(tmp_path, str(tmp_path))
    assert images.open("red/a.jpg").size == UPRIGHT
