"""Annotation files in pieces, without their polygons: the same content wherever windows and pieces end."""

import json
import random

import pytest

from datasets.annotations.json_polygons import without_polygons
from datasets.annotations.json_reader import read_annotations, store_from_content
from datasets.annotations.json_stream import read_members
from tests.datasets import tiny
from util.errors import UserError

POLYGON = [[1.5, 2, -3e-2, 4.25], [7, 8, 9, 10]]
ROWS = [
    {"id": 1, "segmentation": POLYGON, "bbox": [1, 2, 3, 4]},
    {"id": 2, "bbox": [1, 2, 3, 4], "segmentation": POLYGON},
    {"segmentation": [], "id": 3},
    {"id": 4, "segmentation": {"counts": [1, 2], "size": [3, 4]}, "x": {"y": [{}, {"z": 1}]}},
    {"id": 5, "note": 'a "segmentation": [[1, 2]], "b" } , { in a text', "segmentation": None},
    {"id": 6, "segmentation": "none", "ä": 'ü \\ " \U0001f600'},
    {"segmentation": POLYGON},
    {'"segmentation': [1, 2], "end": '\\"segmentation": [1]'},
]


def members(path, block):
    found = {}
    for key, value in read_members(path, block):
        if isinstance(value, list):
            found.setdefault(key, []).extend(value)
        else:
            found[key] = value
    return found


def plain(value):
    """Without lists of numbers under `segmentation`, as the reader may leave them out."""
    if isinstance(value, list):
        return [plain(v) for v in value]
    if not isinstance(value, dict):
        return value
    skipped = ("segmentation",)
    return {k: plain(v) for k, v in value.items() if not (k in skipped and (isinstance(v, list) or v == 0))}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("block", [5, 97, 1000, 1 << 20])
def test_members_are_the_content_without_polygons(tmp_path, block, ascii_only, indent):
    rng = random.Random(block)
    content = {
        "n": 12.5,
        "rows": [rng.choice(ROWS) for _ in range(200)],
        "empty": [],
        "mixed": [{}, 1, "x", []],
        "o": {},
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    assert plain(members(path, block)) == plain(content)


def test_polygons_are_not_parsed_where_they_are_whole():
    text = json.dumps({"annotations": ROWS[:3]})
    assert "[[" not in without_polygons(text)
    assert plain(json.loads(without_polygons(text))) == plain(json.loads(text))


@pytest.mark.parametrize("start", range(0, 120, 7))
def test_a_text_may_begin_and_end_anywhere(start):
    text = json.dumps(ROWS)
    for end in range(start, len(text), 31):
        joined = text[:start] + without_polygons(text[start:end]) + text[end:]
        assert plain(json.loads(joined)) == plain(ROWS)


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_columns_do_not_depend_on_the_window(tmp_path, monkeypatch, block):
    content = tiny.detection_content(30, "train")[0]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    monkeypatch.setattr("datasets.annotations.json_reader.BLOCK", block)
    read, expected = read_annotations(path), store_from_content(content, path.name)
    for name in ("image_ids", "sizes", "boxes_xywh", "areas", "category_index", "annotation_ids"):
        assert getattr(read, name).tolist() == getattr(expected, name).tolist()
    assert read.categories == expected.categories
    assert [read.file_names[i] for i in range(30)] == [expected.file_names[i] for i in range(30)]
    assert read.negatives.values.tolist() == expected.negatives.values.tolist()


@pytest.mark.parametrize("block", [16, 1 << 20])
def test_every_cut_ends_early_and_says_after_how_many_characters(tmp_path, block):
    text = json.dumps({"n": -1.5e-7, "rows": ROWS, "flag": [True, None]}, ensure_ascii=True)
    path = tmp_path / "cut.json"
    for length in range(0, len(text), 3):
        path.write_text(text[:length])
        with pytest.raises(UserError, match=rf"cut\.json: ends early \(after {length} characters\)"):
            members(path, block)


@pytest.mark.parametrize("block", [16, 1 << 20])
def test_the_place_of_a_fault_counts_polygons_and_lines(tmp_path, block):
    text = json.dumps({"rows": ROWS * 3, "then": [1, 2]}, indent=1)
    path = tmp_path / "bad.json"
    path.write_text(text.replace('"then": [', '"then" ['))
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


def test_bytes_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": "' + "ü".encode() * 50 + b'\xff"}')
    with pytest.raises(UserError, match=r"not a JSON text file \(invalid start byte at byte 107\)"):
        members(path, 10)
