import json
import shutil

import pytest

from tests.datasets import tiny
from tools.remove_rare import main
from util.errors import UserError


def without(content, ids):
    return content | {"annotations": [a for a in content["annotations"] if a["category_id"] not in ids]}


def test_only_the_boxes_of_rare_classes_go_under_both_names(tmp_path, capsys):
    path = tiny.write_detection(tmp_path, "train", 9)
    assert main([str(path), "--suffix", "norare", "rm_rare"]) == 0
    expected = without(json.loads(path.read_text()), {5})
    assert len(expected["annotations"]) == 13
    for name in ("norare", "rm_rare"):
        assert json.loads(path.with_name(f"lvis_v1_train_{name}.json").read_text()) == expected
    assert "boxes removed: 1\nboxes kept: 13" in capsys.readouterr().out


def test_a_file_of_rare_boxes_alone_becomes_one_without_boxes(tmp_path):
    path = tiny.write_detection(tmp_path, "train", 1)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(without(content, {1, 2})))
    main([str(path), "--output", str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text())["annotations"] == []


def test_ids_that_are_text_are_ids(tmp_path):
    path = tiny.write_detection(tmp_path, "train", 9)
    main([str(path), "--output", str(tmp_path / "numbers.json")])
    content = json.loads(path.read_text())
    for category in content["categories"]:
        category["id"] = str(category["id"])
    for annotation in content["annotations"][::2]:
        annotation["category_id"] = float(annotation["category_id"])
    path.write_text(json.dumps(content))
    main([str(path), "--output", str(tmp_path / "texts.json")])
    kept = [json.loads((tmp_path / f"{n}.json").read_text())["annotations"] for n in ("numbers", "texts")]
    assert kept[0] == kept[1] and len(kept[0]) == 13


def test_without_frequencies_it_says_how_to_get_them(tmp_path):
    path = tiny.write_detection(tmp_path, "train", 2)
    path.write_text(path.read_text().replace('"frequency"', '"often"'))
    with pytest.raises(UserError, match=r"3 categories have no `frequency`.*category_counts\.py --update"):
        main([str(path)])
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_nothing_half_written_is_left(tmp_path):
    path = tiny.write_detection(tmp_path, "train", 9)
    text = path.read_text()
    categories = json.dumps({"categories": json.loads(text)["categories"]})
    # The categories first: they are read before the file turns out to end early.
    path.write_text(categories[:-1] + ", " + text[1:200])
    with pytest.raises(UserError, match="ends early"):
        main([str(path)])
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_second_file_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tiny.write_detection(tmp_path, "train", 9)

    def fail(*_):
        raise OSError(28, "No space left on device")

    for copy in ("copyfile", "copyfileobj"):
        monkeypatch.setattr(shutil, copy, fail)
    with pytest.raises(
        UserError, match=r"train_rm_rare\.json: cannot be written \(No space left on device\)"
    ):
        main([str(path), "--suffix", "norare", "rm_rare"])
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, "lvis_v1_train_norare.json"]


def test_a_category_without_id_is_named(tmp_path):
    path = tiny.write_detection(tmp_path, "train", 2)
    content = json.loads(path.read_text())
    content["categories"].append({"name": "pink", "frequency": "r"})
    path.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"train\.json: category .*pink.*: object missing required field `id`"
    ):
        main([str(path)])
