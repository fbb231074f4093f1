"""The doctor reads images with an EXIF orientation as training does, and says how."""

from datasets.images.reader import ImageFolder
from tests.datasets.test_orientation import UPRIGHT, write
from tools.data_doctor.findings import Severity
from tools.data_doctor.images import check_images


def test_images_with_an_orientation_are_counted_by_how_they_are_read(tmp_path):
    names = [f"{orientation}.jpg" for orientation in range(1, 9)]
    for orientation, name in enumerate(names, 1):
        write(tmp_path / name, orientation)
    sizes = [UPRIGHT, UPRIGHT, UPRIGHT, UPRIGHT, UPRIGHT, UPRIGHT, UPRIGHT[::-1], (0, 0)]
    report = check_images("train", ImageFolder(tmp_path), names, sizes)
    found = {finding.what: (finding.severity, list(finding.examples)) for finding in report.findings(1)}
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
    (only,) = check_images("train", ImageFolder(tmp_path, upright=True), names, [UPRIGHT] * 8).findings(1)
    assert only.what == "7 images have an EXIF orientation and are read upright"
