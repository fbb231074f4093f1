import io
import json

import pytest

from datasets.annotations.json_stream import read_entries, write_entries
from util.errors import UserError

CONTENT = {
    "info": {"year": 2023, "text": 'quotes " and ] } , \\ in it'},
    "images": [{"id": i, "neg": [1, 2, [3]]} for i in range(50)],
    "annotations": [],
    "count": 1234567,
    "numbers": [1, -2.5e3, 123456789],
    "none": None,
    "last": [{"ä": "ü"}],
}


def rebuilt(path, block):
    """The content of a file by its entries."""
    found = {}
    for entry in read_entries(path, block):
        if entry.listed:
            found.setdefault(entry.key, []).append(entry.value)
        else:
            found[entry.key] = entry.value
        assert json.loads(entry.text) == entry.value
    return found


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_entries_are_the_content_wherever_the_windows_end(tmp_path, block, indent):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONTENT, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert rebuilt(path, block) == CONTENT
    copy = io.StringIO()
    write_entries(copy, ((e.key, e.text, e.listed) for e in read_entries(path, block)))
    assert json.loads(copy.getvalue()) == CONTENT


@pytest.mark.parametrize("content", [{}, {"a": []}, {"a": [1]}, {"a": 1, "b": [], "c": [[]]}])
def test_small_objects_are_copied(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    copy = io.StringIO()
    write_entries(copy, ((e.key, e.text, e.listed) for e in read_entries(path)))
    assert json.loads(copy.getvalue()) == content


@pytest.mark.parametrize("length", [1, 30, 60, 200, 700])
def test_a_file_that_ends_early_is_named(tmp_path, length):
    path = tmp_path / "cut.json"
    path.write_text(json.dumps(CONTENT)[:length])
    with pytest.raises(UserError, match=rf"cut\.json: ends early \(after {length} characters\)"):
        list(read_entries(path))


@pytest.mark.parametrize("text", ['{"a": [1 2]}', '{"a" 1}', "{1: 2}", '{"a": nil}', "hello " * 9])
def test_what_is_not_json_is_named_with_the_place(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text + " " * 40)
    with pytest.raises(UserError, match=r"bad\.json: is not valid JSON \(line 1, column \d+"):
        list(read_entries(path))


def test_a_list_is_no_annotation_file(tmp_path):
    path = tmp_path / "predictions.json"
    path.write_text("[1, 2]")
    with pytest.raises(UserError, match=r"predictions\.json: holds a list, not an object"):
        list(read_entries(path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        list(read_entries(tmp_path / "none.json"))
