"""What the CSV files of Open Images say, and what is wrong with them."""

import numpy as np
import pytest

from datasets.annotations import open_images_csv
from datasets.annotations.discovery import find_detection, find_split, open_detection
from tests.layouts import open_images
from tests.layouts.drawn import CLASSES, as_drawn, as_read, of_split
from util.errors import UserError

BOXES = "validation-annotations-bbox.csv"
LABELS = "validation-annotations-human-imagelabels-boxable.csv"


def change(root, name, old, new):
    path = root / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    return path


def test_classes_that_people_found_absent_are_negatives(tmp_path):
    open_images.official(tmp_path)
    path = tmp_path / LABELS
    # Nobody looked for the last class in the second image.
    rows = path.read_text().splitlines()
    dropped = f"{open_images.identity(of_split('val')[1])},verification,{open_images.LABELS[2]},0"
    path.write_text("\n".join(row for row in rows if row != dropped))
    table = find_detection(tmp_path, "val").read()
    assert table.federated
    for index, image in enumerate(of_split("val")):
        absent = [c for c in CLASSES if c not in {name for name, *_ in image.boxes}]
        absent = absent[:-1] if index == 1 else absent
        assert [table.categories[c].name for c in table.negatives[index]] == absent


def test_a_box_says_more_than_a_label(tmp_path):
    open_images.official(tmp_path)
    path = tmp_path / LABELS
    path.write_text(path.read_text().replace(",1\n", ",0\n"))
    table = find_detection(tmp_path, "val").read()
    for index in range(len(table)):
        assert not set(table.negatives[index]) & set(table.category_index[table.rows(index)])


def test_boxes_around_groups_are_ignored_crowds(tmp_path):
    open_images.official(tmp_path)
    (tmp_path / BOXES).write_text(open_images.boxes(of_split("val"), group="1"))
    table = find_detection(tmp_path, "val").read()
    assert (
        table.crowd.all()
        and table.ignore.all()
        and len(table.crowd) == sum(len(i.boxes) for i in of_split("val"))
    )
    for index in range(len(table)):
        assert (
            table.not_exhaustive[index].tolist()
            == np.unique(table.category_index[table.rows(index)]).tolist()
        )


def test_without_verified_labels_every_class_counts_as_looked_for(tmp_path, caplog):
    open_images.official(tmp_path)
    (tmp_path / LABELS).unlink()
    table = find_detection(tmp_path, "val").read()
    assert not table.federated
    assert "without *-annotations-human-imagelabels-boxable.csv beside it" in caplog.text


def test_a_part_of_the_images_is_enough(tmp_path, caplog):
    open_images.official(tmp_path)
    for path in sorted((tmp_path / "train").iterdir())[:2]:
        path.unlink()
    (tmp_path / "train" / "mine.jpg").write_bytes((tmp_path / "train").glob("*.jpg").__next__().read_bytes())
    found = as_read(*open_detection(tmp_path, "train"))
    assert found == {
        k: v for k, v in as_drawn("train").items() if k in {i.pixels.tobytes() for i in of_split("train")[2:]}
    }
    assert (
        "2 of its 4 images are not there and are left out, as are 1 images that it does not name"
        in caplog.text
    )
    for path in (tmp_path / "train").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"none of its images is below .*; looked for 000000000000a0f3\.jpg"):
        open_detection(tmp_path, "train")


def test_rows_are_read_by_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(open_images_csv, "_ROWS", 2)
    open_images.official(tmp_path)
    assert as_read(*open_detection(tmp_path, "train")) == as_drawn("train")


def test_of_the_list_of_all_labels_only_those_with_boxes_are_classes(tmp_path):
    open_images.official(tmp_path)
    others = "".join(f"/m/x{i},thing {i}\n" for i in range(1100))
    (tmp_path / "class-descriptions-boxable.csv").unlink()
    names = f"LabelName,DisplayName\n{others}{open_images.CLASS_NAMES}"
    (tmp_path / "oidv6-class-descriptions.csv").write_text(names)
    assert [c.name for c in find_detection(tmp_path, "train").read().categories] == list(CLASSES)
    (tmp_path / "oidv6-class-descriptions.csv").unlink()
    assert [c.name for c in find_detection(tmp_path, "val").read().categories] == sorted(open_images.LABELS)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (BOXES, "XMin", "Xmin", r"bbox\.csv: has no column 'XMin', but ImageID, Source, .*Xmin"),
        (BOXES, ",xclick,", ",", r"line 2: 12 values, not 13 as in the first line"),
        (BOXES, "/m/02", "/m/none", r"line 2: the class '/m/none.*' is in no list of classes"),
        (BOXES, ",1,0.", ",1,x0.", r"line 2: XMin 'x0\.\d+', .* are not fractions"),
        (BOXES, ",1,0.", ",1,40.", r"line 2: XMin '40\.\d+', .* are not fractions of the image, 0\.\.1"),
        (BOXES, ",1,0.", ",1,nan,0.", r"line 2: 14 values"),
        (BOXES, "0,0,0,0,0\n", "0,0,yes,0,0\n", "line 2: IsGroupOf is 'yes', not 0 or 1"),
        (BOXES, ",xclick,", ',"xclick,', "is no CSV"),
        (LABELS, ",1\n", ",0.7\n", r"boxable\.csv line \d: Confidence is '0\.7', not 0 or 1"),
        ("class-descriptions-boxable.csv", ",cup", "", r"line 1: '/m/02p5f1q' is not `label,name`"),
        (
            "class-descriptions-boxable.csv",
            "/m/02zt3",
            "/m/02p5f1q",
            "line 2: the label '/m/02p5f1q' is listed twice",
        ),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path, name, old, new, message):
    open_images.official(tmp_path)
    change(tmp_path, name, old, new)
    with pytest.raises(UserError, match=message) as caught:
        open_detection(tmp_path, "val")
    assert "\n" not in str(caught.value)


def test_a_damaged_image_is_left_out_with_its_boxes(tmp_path, caplog):
    open_images.official(tmp_path)
    path = tmp_path / "train" / f"{open_images.identity(of_split('train')[0])}.jpg"
    path.write_bytes(path.read_bytes()[:50])
    expected = as_drawn("train")
    del expected[of_split("train")[0].pixels.tobytes()]
    assert as_read(*open_detection(tmp_path, "train")) == expected
    assert "1 damaged images are skipped, first: train/" in caplog.text


def test_other_tables_are_not_open_images(tmp_path):
    (tmp_path / "train.csv").write_text("image,x1\n")
    assert find_split(tmp_path, "train") is None
