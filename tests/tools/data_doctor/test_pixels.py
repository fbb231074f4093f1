"""The doctor reads images as training does, and says how: orientation, modes, shapes."""

import numpy as np
import pytest
from PIL import Image

from datasets.images.preprocess import ImageError
from datasets.images.reader import ImageFolder
from tests.datasets.test_orientation import UPRIGHT, write
from tools.data_doctor.findings import Severity
from tools.data_doctor.images import check_images
from tools.data_doctor.pixels import check_pixels


def test_images_with_an_orientation_are_counted_by_how_they_are_read(tmp_path):
    names = [f"{orientation}.jpg" for orientation in range(1, 9)]
    for orientation, name in enumerate(names, 1):
        write(tmp_path / name, orientation)
    sizes = [UPRIGHT, UPRIGHT, UPRIGHT, UPRIGHT, UPRIGHT, UPRIGHT, UPRIGHT[::-1], (0, 0)]
    report = check_images("train", ImageFolder(tmp_path), names, sizes)
    findings = check_pixels("train", report.checks)
    found = {finding.what: (finding.severity, list(finding.examples)) for finding in findings}
    assert found == {
        "2 images have an EXIF orientation and are read upright": (Severity.NOTE, ["5.jpg", "6.jpg"]),
        "1 images have an EXIF orientation and are read as stored, as their stated sizes say": (
            Severity.NOTE,
            ["7.jpg"],
        ),
        "4 images have an EXIF orientation and are read as stored, as COCO's tools do, since no size tells": (
            Severity.WARNING,
            ["2.jpg", "3.jpg", "4.jpg", "8.jpg"],
        ),
    }
    report = check_images("train", ImageFolder(tmp_path, upright=True), names, [UPRIGHT] * 8)
    (only,) = check_pixels("train", report.checks)
    assert only.what == "7 images have an EXIF orientation and are read upright"


def look(folder, names):
    """(faults of files, what is said of pixels) of images in a folder."""
    report = check_images("train", ImageFolder(folder), names, [(0, 0)] * len(names))
    return list(report.findings(1)), list(check_pixels("train", report.checks))


def test_modes_are_counted_in_one_finding(tmp_path):
    modes = {"a.png": "L", "b.png": "L", "c.png": "RGBA", "d.jpg": "CMYK", "e.png": "1", "f.jpg": "RGB"}
    for name, mode in modes.items():
        Image.new(mode, (40, 50)).save(tmp_path / name)
    Image.fromarray(np.full((40, 50), 999, np.uint16)).save(tmp_path / "g.png")
    faults, (finding,) = look(tmp_path, [*modes, "g.png"])
    assert faults == [] and finding.severity is Severity.NOTE
    assert finding.what.startswith("6 images are converted to 8-bit RGB") and finding.count == 6
    assert list(finding.examples) == [
        "grey (L): 2, such as a.png",
        "colour with transparency (RGBA): 1, such as c.png",
        "colours of printing (CMYK): 1, such as d.jpg",
        "black and white (1): 1, such as e.png",
        "grey of 16 bits (I;16): 1, such as g.png",
    ]


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.uint16])
def test_pixels_that_training_refuses_are_damaged_for_the_doctor(tmp_path, kind):
    Image.fromarray(np.full((40, 50), 7, kind)).save(tmp_path / "a.tif")
    refused = False
    try:
        ImageFolder(tmp_path).read("a.tif")
    except ImageError:
        refused = True
    faults, _ = look(tmp_path, ["a.tif"])
    assert bool(faults) == refused
    assert not refused or "does not decode" in faults[0].examples[0]
    assert kind != np.float32 or refused


def test_long_and_small_images(tmp_path):
    sizes = {"a": (100, 3000), "b": (3000, 20), "c": (100, 2000), "d": (31, 40), "e": (32, 32), "f": (5, 8)}
    for name, (height, width) in sizes.items():
        Image.new("RGB", (width, height)).save(tmp_path / f"{name}.png")
    _, findings = look(tmp_path, [f"{name}.png" for name in sizes])
    assert [(f.severity.name, f.what, list(f.examples)) for f in findings] == [
        ("WARNING", "2 images are more than 20 times as long as wide", ["b.png: 20x3000", "a.png: 3000x100"]),
        (
            "NOTE",
            "3 images have a side of less than 32 pixels",
            ["f.png: 8x5", "b.png: 20x3000", "d.png: 40x31"],
        ),
    ]
