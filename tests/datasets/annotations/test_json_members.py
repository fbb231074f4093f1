"""Annotation files in pieces: the same content wherever windows and pieces end."""

import json
import random
from typing import Any

import msgspec
import pytest

from datasets.annotations.json_errors import load_json
from datasets.annotations.json_reader import read_annotations
from datasets.annotations.json_stream import read_list, read_members
from tests.datasets import tiny
from util.errors import UserError

POLYGON = [[1.5, 2, -3e-2, 4.25], [7, 8, 9, 10]]
ROWS = [
    {"id": 1, "segmentation": POLYGON, "bbox": [1, 2, 3, 4]},
    {"id": 2, "bbox": [1, 2, 3, 4], "segmentation": POLYGON},
    {"segmentation": [], "id": 3},
    {"id": 4, "segmentation": {"counts": [1, 2], "size": [3, 4]}, "x": {"y": [{}, {"z": 1}]}},
    {"id": 5, "note": 'a "segmentation": [[1, 2]], "b" } , { and }] in a string', "segmentation": None},
    {"id": 6, "segmentation": "none", "ä": 'ü \\ " \U0001f600'},
    {"segments_info": [{"id": 1}, {"id": 2}], "more": {"list": [{"a": []}]}},
    {'"segmentation': [1, 2], "end": '\\"segmentation": [1]'},
]
KEYS = ("rows", "empty", "mixed", "flag", "numbers", "ä")


def members(path, block):
    found = {}
    for key, value in read_members(path, dict.fromkeys(KEYS, Any), block=block):
        if isinstance(value, list):
            found.setdefault(key, []).extend(value)
        else:
            found[key] = value
    return found


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("block", [5, 97, 1000, 1 << 20])
def test_members_are_the_content(tmp_path, block, ascii_only, indent):
    rng = random.Random(block)
    content = {
        "n": 12.5,
        "rows": [rng.choice(ROWS) for _ in range(200)],
        "empty": [],
        "mixed": [{}, 1, "x", []],
        "o": {},
        "numbers": [1, 2, 3.5],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    assert members(path, block) == content
    path.write_text(json.dumps(content["rows"], indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    assert [row for piece in read_list(path, block) for row in piece] == content["rows"]


class Row(msgspec.Struct):
    id: int
    x: float = 0.0


@pytest.mark.parametrize("block", [16, 100, 1 << 20])
def test_elements_of_another_type_are_reported_one_by_one_and_the_others_are_kept(tmp_path, block):
    rows = [{"id": i, "x": float("nan") if i == 7 else i, "skipped": [{}, {}]} for i in range(30)]
    rows[3]["id"], rows[4]["id"], rows[20] = "3x", "4", [1]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"rows": rows, "skipped": [1, 2]}))
    refused, kept = [], []
    for key, value in read_members(path, {"rows": Row}, lambda *fault: refused.append(fault), block):
        assert key == "rows" or value == []
        kept += value
    assert [(key, value) for key, value, _ in refused] == [("rows", rows[3]), ("rows", [1])]
    assert "Expected `int`, got `str`" in str(refused[0][2])
    assert [row.id for row in kept] == [i for i in range(30) if i not in (3, 20)]
    assert [row.id for row in kept if row.x != row.x] == [7]


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_columns_do_not_depend_on_the_window(tmp_path, monkeypatch, block):
    content = tiny.detection_content(30, "train")[0]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content, indent=1 if block == 64 else None))
    monkeypatch.setattr("datasets.annotations.json_schema.read_columns.__defaults__", (None, block))
    read, images = read_annotations(path), content["images"]
    assert read.image_ids.tolist() == [image["id"] for image in images]
    assert read.sizes.tolist() == [[60, 80]] * 30
    assert read.boxes_xywh.tolist() == [a["bbox"] for a in content["annotations"]]
    assert read.areas.tolist() == [a["area"] for a in content["annotations"]]
    assert read.annotation_ids.tolist() == [a["id"] for a in content["annotations"]]
    ids = read.category_ids
    assert ids[read.category_index].tolist() == [a["category_id"] for a in content["annotations"]]
    assert [c.name for c in read.categories] == [c["name"] for c in content["categories"]]
    assert [read.file_names[i] for i in range(30)] == [i["coco_url"].split(".org/")[1] for i in images]
    assert ids[read.negatives.values].tolist() == [c for i in images for c in i["neg_category_ids"]]


@pytest.mark.parametrize("block", [16, 1 << 20])
def test_every_cut_ends_early_and_says_after_how_many_characters(tmp_path, block):
    text = json.dumps({"n": -1.5e-7, "rows": ROWS, "flag": [True, None]}, ensure_ascii=True)
    path = tmp_path / "cut.json"
    for length in range(0, len(text), 3):
        path.write_text(text[:length])
        with pytest.raises(UserError, match=rf"cut\.json: ends early \(after {length} characters\)"):
            members(path, block)


@pytest.mark.parametrize("block", [16, 1 << 20])
@pytest.mark.parametrize(("before", "after"), [('"then": [', '"then" ['), ('"id": 6', '"id": 06')])
def test_the_place_of_a_fault_counts_lines(tmp_path, block, before, after):
    text = json.dumps({"rows": ROWS * 3, "then": [1, 2]}, indent=1)
    path = tmp_path / "bad.json"
    path.write_text(text.replace(before, after))
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(path.read_text())
    place = f"line {expected.value.lineno}, column {expected.value.colno}"
    with pytest.raises(UserError, match=rf"bad\.json: is not valid JSON \({place}"):
        members(path, block)


def test_what_follows_the_object_is_a_fault(tmp_path):
    path = tmp_path / "two.json"
    path.write_text('{"a": 1}\n{"b": 2}')
    with pytest.raises(UserError, match=r"not valid JSON \(line 2, column 1: Extra data"):
        members(path, 4)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_with_a_byte_order_mark(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_text('{"ä": [{"ü": 1}]}', encoding=encoding)
    assert members(path, 3) == {"ä": [{"ü": 1}]}


def test_bytes_that_are_not_text_are_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a":\n"' + "ü".encode() * 50 + b'",\n"b": "\xba\xec"}')
    place = r"line 3: byte 117 of the file, 0xba, is not UTF-8; save"
    for block in (10, 1000):
        with pytest.raises(UserError, match=rf"not a JSON text file \({place}"):
            members(path, block)
    with pytest.raises(UserError, match=rf"not a JSON text file \({place}"):
        load_json(path)
    path.write_bytes('{"a": 1'.encode("utf-16") + b"\x00\xd8")
    with pytest.raises(UserError, match=r"not a JSON text file \(line 1: byte 17 is not UTF-16"):
        members(path, 10)
