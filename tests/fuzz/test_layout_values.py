"""Every kind of text in every place of VOC's XML and Open Images' CSV: read as what it means, or one line."""

import csv
import math
import re
from xml.sax.saxutils import escape

import numpy as np
import pytest

from datasets.annotations.open_images_csv import read_boxes, read_class_names, read_verified
from datasets.annotations.voc_xml import read_voc
from util.errors import UserError

TEXTS = (
    *("0", "1", "7", "007", "80", "-1", "12.0", "1.5", "0.25", "-0.25", "1e1", "1e400", "nan", "inf", " 7 "),
    *(
        "",
        " ",
        "x",
        "7px",
        "0x10",
        "1,5",
        "true",
        "False",
        "yes",
        "None",
        "[1]",
        "a\nb",
        "\u8f66",
        "<b>",
        '"',
    ),
    "x" * 5000,
)
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[0-9]+)?")


def number(text: str) -> float | None:
    return float(text) if NUMBER.fullmatch(text.strip()) else None


VOC = {
    "filename": "a.png",
    "width": "80",
    "height": "60",
    "name": "cup",
    "difficult": "0",
    "xmin": "1",
    "ymin": "2",
    "xmax": "30",
    "ymax": "40",
}


def voc(**changed: str) -> str:
    at = {key: escape(text) for key, text in (VOC | changed).items()}
    corners = "".join(f"<{key}>{at[key]}</{key}>" for key in ("xmin", "ymin", "xmax", "ymax"))
    return (
        f"<annotation>\n<filename>{at['filename']}</filename><source><database>own</database></source>\n"
        f"<size><width>{at['width']}</width><height>{at['height']}</height></size>\n<object>"
        f"<name>{at['name']}</name><difficult>{at['difficult']}</difficult><bndbox>{corners}</bndbox></object>\n"
        "</annotation>"
    )


@pytest.mark.parametrize("key", VOC)
def test_every_text_in_every_place_of_an_xml_file(tmp_path, key):
    path = tmp_path / "a.xml"
    for text in TEXTS:
        path.write_text(voc(**{key: text}), encoding="utf-8")
        said, plain, shown = read_voc(path), text.strip(), f"{key}: {text!r:.40}"
        value = number(text)
        assert all("\n" not in f and len(f) < 300 + len(str(path)) and str(path) in f for f in said.faults)
        if key == "filename":
            refused = False
            assert said.filename == plain
        elif key in ("width", "height"):
            refused = plain != "" and (value is None or value < 0 or not value.is_integer())
            size = 0 if refused or not plain else int(value or 0)
            assert said.size == ((size, 80) if key == "height" else (60, size)), shown
        elif key == "name":
            refused = not plain or "\n" in plain
            assert refused or said.objects[0].name == plain, shown
        elif key == "difficult":
            refused = plain.lower() not in ("", "0", "1", "true", "false")
            assert refused or said.objects[0].difficult == (plain.lower() in ("1", "true")), shown
        else:
            refused = value is None
            place = ("xmin", "ymin", "xmax", "ymax").index(key)
            if not refused:
                x, y, width, height = said.objects[0].box_xywh
                found = (x, y, x + width, y + height)[place]
                assert found == value or math.isinf(value), f"{shown}: {found}"
        assert bool(said.faults) == refused, f"{shown}: {said.faults}"
        assert not refused or f"`{key}`" in said.faults[0], said.faults


BOX = {
    "ImageID": "a",
    "LabelName": "/m/1",
    "XMin": "0.1",
    "XMax": "0.5",
    "YMin": "0.2",
    "YMax": "0.6",
    "IsGroupOf": "0",
}
VERIFIED = {"ImageID": "a", "LabelName": "/m/1", "Confidence": "1"}


def write(path, *rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(rows)


@pytest.mark.parametrize("key", BOX)
def test_every_text_in_every_place_of_a_table_of_boxes(tmp_path, key):
    path = tmp_path / "boxes.csv"
    for text in TEXTS:
        changed = BOX | {key: text}
        write(path, BOX, BOX.values(), changed.values())
        found = read_boxes(path, {"a": 0}, {"/m/1": 0})
        value, shown = number(text), f"{key}: {text!r:.40}: {found.faults}"
        assert all("\n" not in f and len(f) < 300 + len(str(path)) for f in found.faults)
        if key == "ImageID":
            right = False
            assert found.others == {text} and not found.faults
            continue
        if key == "LabelName":
            right = False
        elif key == "IsGroupOf":
            right = text in ("0", "1", "-1", "")
            assert not right or found.group.tolist() == [False, text == "1"], shown
        else:
            right = value is not None and abs(value) <= 1.5
            column = ("XMin", "YMin", "XMax", "YMax").index(key)
            assert not right or found.boxes[1, column] == value, shown
        assert len(found.boxes) == 1 + right and bool(found.faults) != right, shown
        # The fields of a row may hold line ends.
        assert right or (
            re.search(rf"{re.escape(str(path))} line [34]: ", found.faults[0])
            and (key in found.faults[0] or key == "LabelName")
        ), shown


def test_every_text_in_tables_of_labels_and_names(tmp_path):
    path = tmp_path / "labels.csv"
    for text in TEXTS:
        write(path, VERIFIED, (VERIFIED | {"Confidence": text}).values())
        found = read_verified(path, {"a": 0}, {"/m/1": 0})
        right = text in ("0", "1")
        assert len(found.present) == right and bool(found.faults) != right, text
        assert not right or found.present[0] == (text == "1")
        write(path, ["/m/1", text])
        plain = text.strip()
        if plain and "\n" not in plain:
            assert read_class_names(path) == {"/m/1": plain}
        else:
            with pytest.raises(UserError, match=r"labels\.csv line [12]: "):
                read_class_names(path)
    assert np.isfinite(found.image_index).all()
