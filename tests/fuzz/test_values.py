"""Every key of every reader gets every kind of value: it is read as what it means, or refused in one line.

Keys are taken from the readers' own types, so a new key is tried too.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import numpy as np
import pytest
from PIL import Image

from datasets.annotations.categories import Category
from datasets.annotations.json_reader import read_annotations
from datasets.annotations.json_schema import BoxRow, ImageRow, read_columns
from datasets.annotations.yolo_labels import LabelReader
from datasets.annotations.yolo_layout import YoloFolder, YoloSplit
from datasets.evaluation import predictions
from datasets.evaluation.predictions import read_predictions
from tests.fuzz.values import REFUSED, VALUES, meaning
from util.errors import UserError

IMAGES = [{"id": 1, "file_name": "a.png", "height": 60, "width": 80}, {"id": 2, "file_name": "b.png"}]
BOXES = [{"id": i, "image_id": i, "category_id": i, "bbox": [1, 2, 3, 4]} for i in (1, 2)]
CATEGORIES = [{"id": 1, "name": "cup"}, {"id": 2, "name": "urn"}]
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}] * 2


def kinds_of(row_type: type) -> dict[str, Any]:
    """The kind of each key, by the type that the reader declares."""
    hints = get_type_hints(row_type, include_extras=True)
    names = (
        [f.name for f in dataclasses.fields(row_type)]
        if dataclasses.is_dataclass(row_type)
        else (msgspec.structs.fields(row_type))
    )
    keys = [n if isinstance(n, str) else n.name for n in names]
    return {key: msgspec.inspect.type_info(hints[key]) for key in keys}


def content(**changed: Any) -> str:
    return json.dumps({"images": IMAGES, "annotations": BOXES, "categories": CATEGORIES} | changed)


def second(rows: list[dict], key: str, value: Any) -> list[dict]:
    return [rows[0], rows[1] | {key: value}]


def refusal(read: Any, path: Path) -> str:
    """The one line of a refusal; '' where the file is read."""
    try:
        read(path)
    except UserError as error:
        line = str(error)
        assert "\n" not in line and len(line) < 700 + len(str(path)) and str(path) in line, line[:1000]
        return line
    return ""


def same(found: Any, expected: Any) -> bool:
    return np.array_equal(np.asarray(found, float), np.asarray(expected, float), equal_nan=True)


def check(
    row_type: type, key: str, path: Path, read: Any, write: Any, value_of: Any, expected_of: Any, entry: str
):
    kind = kinds_of(row_type)[key]
    for value in VALUES:
        path.write_text(write(value))
        expected = expected_of(value, kind)
        line = refusal(read, path)
        shown = f"{key}: {value!r:.60}"
        if expected is REFUSED:
            assert line, f"{shown} is read"
            assert entry in line and f"`{key}`" in line, f"{shown}: {line}"
        else:
            assert not line, f"{shown}: {line}"
            assert value_of(path) == expected or same(value_of(path), expected), f"{shown}: {value_of(path)}"


@pytest.mark.parametrize("key", kinds_of(ImageRow))
def test_images(tmp_path, key):
    def expected(value, kind):
        found = meaning(value, kind)
        if key == "file_name" and not found:
            return REFUSED  # and no coco_url
        return found

    def value_of(path):
        images = read_columns(path)[0]
        if key == "id":
            return images.column("ids")[1]
        if key in ("height", "width"):
            return images.column("sizes")[1, int(key == "width")]
        if key == "coco_url":
            return None if images.file_names[1] == "b.png" else images.file_names[1]
        if key == "file_name":
            return images.file_names[1]
        return tuple(images.column(key)[images.column(f"{key}.rows") == 1])

    def shown(value, kind):
        found = expected(value, kind)
        if key in ("height", "width"):
            return 0 if found is None else found
        if key == "coco_url":  # file_name wins
            return None if found is not REFUSED or isinstance(value, str) else REFUSED
        return () if found is None and key.endswith("_ids") else found

    write = lambda value: content(images=second(IMAGES, key, value))  # noqa: E731
    check(ImageRow, key, tmp_path / "a.json", read_columns, write, value_of, shown, "image ")


@pytest.mark.parametrize("key", kinds_of(BoxRow))
def test_annotations(tmp_path, key):
    columns = {"id": "ids", "image_id": "image_ids", "category_id": "category_ids", "bbox": "boxes_xywh"}
    columns |= {"area": "areas", "ignore": "ignore", "iscrowd": "crowd"}

    def expected(value, kind):
        found = meaning(value, kind)
        return {"area": np.nan, "ignore": False, "iscrowd": False}.get(key) if found is None else found

    def value_of(path):
        return read_columns(path)[1].column(columns[key])[1].tolist()

    write = lambda value: content(annotations=second(BOXES, key, value))  # noqa: E731
    check(BoxRow, key, tmp_path / "a.json", read_columns, write, value_of, expected, "annotation ")


@pytest.mark.parametrize("key", kinds_of(Category))
def test_categories(tmp_path, key):
    default = {"synset": "", "synonyms": (), "frequency": "", "image_count": 1}

    def expected(value, kind):
        if value is None:
            return default.get(key, REFUSED)
        if key == "name":
            value = str(value) if type(value) is int else value.strip() if isinstance(value, str) else value
        found = meaning(value, kind)
        if key == "name" and found is not REFUSED and "\n" in found:
            return REFUSED
        if key == "id":
            return REFUSED if found == 1 else found
        return default["image_count"] if found is None else found

    def value_of(path):
        category = next(c for c in read_annotations(path).categories if c.id != 1)
        return getattr(category, key)

    def write(value):
        boxes = BOXES[:1] if key == "id" else BOXES
        return content(categories=second(CATEGORIES, key, value), annotations=boxes)

    def read(path):
        try:
            read_annotations(path)
        except UserError as error:
            # One class, listed twice.
            raise UserError(
                str(error).replace("is listed twice", "`id`").replace("its name", "`name`")
            ) from None

    check(Category, key, tmp_path / "a.json", read, write, value_of, expected, "category ")


@pytest.mark.parametrize("key", kinds_of(predictions._Row))
def test_predictions(tmp_path, key):
    def expected(value, kind):
        found = meaning(value, kind)
        if key == "bbox" and found is not REFUSED:
            return [np.nan if v is None else v for v in found]
        return np.nan if found is None else found

    def value_of(path):
        read = read_predictions(path)
        columns = {"image_id": read.image_ids, "category_id": read.category_ids, "score": read.scores}
        return (columns | {"bbox": read.boxes})[key][1].tolist()

    write = lambda value: json.dumps(second(RESULTS, key, value))  # noqa: E731
    path = tmp_path / "p.json"
    check(predictions._Row, key, path, read_predictions, write, value_of, expected, "prediction number 1 ")


@pytest.mark.parametrize("key", ["images", "annotations", "categories", "labelled_category_ids", "info", "x"])
def test_what_stands_in_place_of_a_list(tmp_path, key):
    path = tmp_path / "a.json"
    for value in VALUES:
        path.write_text(content(**{key: value}))
        line = refusal(read_annotations, path)
        if key in ("info", "x"):
            assert not line, f"{key}: {value!r:.60}: {line}"
        elif not isinstance(value, list) and value is not None:
            assert f"`{key}`" in line, f"{key}: {value!r:.60}: {line}"


def open_yolo(source: Path, split: str) -> YoloSplit:
    return YoloFolder.open(source).split(split)


# YAML: a value is the text that is written.

TEXTS = (
    "yes",
    "No",
    "on",
    "7",
    "007",
    "1.50",
    "2024-01-01",
    "0x10",
    "1e3",
    "x y",
    "\u8f66",
    "a: b",
    "=",
    "<<",
)
TEXTS += ("'null'", "'7'", '" x "', "!!str 7", "~", "null", "", "[]", "{}", "[a]", "{a: b}", "*x", "&a b")
TEXTS += (
    "!!python/object:os.system x",
    "'\\ud800'",
    '"\\ud800"',
    '"a\\0b"',
    "''",
    "' '",
    "@x",
    "[",
    "- a",
    "x" * 5000,
)
NOT_AS_WRITTEN = {
    "'null'": "null",
    "'7'": "7",
    '" x "': "x",
    "!!str 7": "7",
    "'\\ud800'": "\\ud800",
    "&a b": "b",
}
REFUSED_TEXTS = {
    "~",
    "null",
    "",
    "[]",
    "{}",
    "[a]",
    "{a: b}",
    "a: b",
    "*x",
    '"\\ud800"',
    "''",
    "' '",
    "@x",
    "[",
    "- a",
}
REFUSED_TEXTS |= {'"a\\0b"', "!!python/object:os.system x"}


ELSE = ("not valid YAML", "no class names", "does not exist")


@pytest.fixture
def yolo(tmp_path) -> Path:
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "images" / split / "a.png")
    return tmp_path


def write_yaml(folder: Path, **changed: str) -> Path:
    keys = {"names": "[cup, urn]", "train": "images/train", "val": "images/val"} | changed
    path = folder / "data.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["[cup, {}]", "{{0: cup, 1: {}}}", "\n- cup\n- {}", "\n  0: cup\n  '1': {}"])
def test_every_text_as_a_name_of_data_yaml(yolo, form):
    flow = form.startswith(("[", "{"))
    for text in TEXTS:
        path = write_yaml(yolo, names=form.format(text))
        line = refusal(lambda path: open_yolo(path, "train"), path)
        if text in REFUSED_TEXTS:
            # In a flow list nothing behind a comma is no entry, and `a: b` a dict.
            assert line or (flow and text == ""), f"{text!r} is read"
        elif text == "<<" and not form.startswith(("[", "\n-")):
            continue
        else:
            expected = NOT_AS_WRITTEN.get(text, text)
            assert not line and open_yolo(path, "train").names == ("cup", expected), f"{text!r:.60}: {line}"


@pytest.mark.parametrize("key", ["names", "nc", "path", "train", "val", "kpt_shape", "channels", "x"])
def test_every_text_in_place_of_a_value_of_data_yaml(yolo, key):
    """As a whole: read as if the key were absent, or the file is refused by name."""
    whole = open_yolo(write_yaml(yolo), "train")
    for text in (*TEXTS, "2", "'2'", "2.0", "[2, 3]", "['2', '3']", "[2]", "[a, 3]", "true", "[[a], b]"):
        path = write_yaml(yolo, **{key: text})
        line = refusal(lambda path: open_yolo(path, "train"), path)
        if line:
            assert key in line or any(
                words in line for words in ("valid YAML", "no class names", "does not exist")
            ), f"{key}: {text!r:.60}: {line}"
            continue
        found = open_yolo(path, "train")
        assert found.images == whole.images, f"{key}: {text!r:.60}"
        assert found.names == whole.names or (key == "names" and text[0] == "["), f"{key}: {text!r:.60}"
        assert found.keypoints == {"[2, 3]": 6, "['2', '3']": 6}.get(text if key == "kpt_shape" else "")
        assert key != "nc" or text in ("2", "'2'", "~", "null", ""), text


def test_every_text_in_every_place_of_a_label_row(tmp_path):
    row = ["1", "0.5", "0.4", "0.2", "0.1"]
    path = tmp_path / "a.txt"
    for place in range(6):
        for text in ("1", "0", "2", "1.0", "0.25", "2.5e-1", "1e400", "-1", "-0.25", "nan", "inf", "1_0", "x",
                     "\u0663", "0x1", "True", "0,5", "'0'", "[0]", "9" * 400, "x" * 5000):  # fmt: skip
            words = [*row[:place], text, *row[place + 1 :]]
            path.write_text(" ".join(words) + "\n", encoding="utf-8")
            rows, faults = LabelReader(("cup", "urn")).read(path)
            assert len(rows) + len(faults) == 1 and all("\n" not in f and len(f) < 400 for f in faults)
            plain = meaning(text, float)
            if place == 0:
                right = plain in (0.0, 1.0)
            else:
                right = place < 5 and plain is not REFUSED and -0.5 <= plain <= (1.5 if place < 3 else 2)
                right = right and (place < 3 or plain >= 0)
            assert bool(rows) == right, f"{words}: {rows} {faults}"
            assert not rows or np.allclose(rows[0], [float(word) for word in words])
            assert not faults or f"{path} line 1: " in faults[0]


def test_every_text_as_a_line_of_a_class_list(yolo):
    (path := write_yaml(yolo)).unlink()
    for text in (*TEXTS, "\ufeffcup2", "x\u2028y", "a\x1fb", "null"):
        (yolo / "classes.txt").write_text(f"cup\n{text}\nurn\n", encoding="utf-8")
        line = refusal(lambda _: open_yolo(yolo, "train"), yolo)
        if "\u2028" in text or "\x1f" in text:
            assert "classes.txt: line 2" in line and "is no line of text" in line
        elif not text.strip():
            assert "classes.txt: line 2 is empty" in line
        else:
            assert not line and open_yolo(yolo, "train").names == ("cup", text.strip(), "urn")
    del path
