import json

import pytest

from datasets.annotations.frequency import frequency_of
from tests.datasets import tiny
from tools.category_counts import main
from util.errors import UserError


@pytest.fixture
def train(tmp_path):
    """Nine images: red on all, green on four, blue on one; without any count or frequency."""
    path = tiny.write_detection(tmp_path, "train", 9)
    content = json.loads(path.read_text())
    content["categories"] = [{"id": c["id"], "name": c["name"]} for c in content["categories"]]
    # A second red box on an image is one more box, not one more image.
    content["annotations"].append(content["annotations"][0] | {"id": 99})
    path.write_text(json.dumps(content))
    return path


def counts(path):
    content = json.loads(path.read_text())
    entries = content if isinstance(content, list) else content["categories"]
    return [(c["name"], c["image_count"], c["instance_count"], c["frequency"]) for c in entries]


def test_images_boxes_and_frequencies_are_counted(train, capsys):
    assert main([str(train), "--cuts", "1", "4"]) == 0
    assert counts(train.with_name("lvis_v1_train_cat_info.json")) == [
        ("red_square", 9, 10, "f"),
        ("green_square", 4, 4, "c"),
        ("blue_square", 1, 1, "r"),
    ]
    assert "classes: 3 (1 r, 1 c, 1 f)" in capsys.readouterr().out


def test_ids_that_are_text_and_spaces_around_names_are_as_they_are_read(train, tmp_path):
    content = json.loads(train.read_text())
    for category in content["categories"]:
        category.update(id=str(category["id"]), name=f" {category['name']} ")
    (tmp_path / "texts.json").write_text(json.dumps(content))
    main([str(train), "--update", str(tmp_path / "texts.json")])
    assert [row[1:] for row in counts(tmp_path / "texts.json")] == [(9, 10, "r"), (4, 4, "r"), (1, 1, "r")]
    main([str(tmp_path / "texts.json"), "--output", str(tmp_path / "out.json")])
    assert counts(tmp_path / "out.json") == counts(train.with_name("lvis_v1_train_cat_info.json"))


def test_files_are_updated_and_else_unchanged(train, tmp_path):
    val = tiny.write_detection(tmp_path, "val", 3, first_id=100)
    before = [json.loads(p.read_text()) for p in (train, val)]
    main([str(train), "--update", str(train), str(val)])
    for path, content in zip((train, val), before, strict=True):
        assert [row[1:] for row in counts(path)] == [(9, 10, "r"), (4, 4, "r"), (1, 1, "r")]
        assert json.loads(path.read_text()) | {"categories": 0} == content | {"categories": 0}


def test_frequencies_that_are_there_stay_unless_asked(tmp_path):
    path = tiny.write_detection(tmp_path, "train", 9)
    main([str(path), "--output", str(tmp_path / "kept.json")])
    assert [row[3] for row in counts(tmp_path / "kept.json")] == ["f", "c", "r"]
    main([str(path), "--output", str(tmp_path / "new.json"), "--new_frequency"])
    assert [row[3] for row in counts(tmp_path / "new.json")] == ["r", "r", "r"]


def test_classes_that_do_not_fit_are_named(train, tmp_path):
    val = tiny.write_detection(tmp_path, "val", 3, first_id=100)
    val.write_text(val.read_text().replace("green_square", "green_box"))
    with pytest.raises(UserError, match=r"val\.json: class 'green_box' is not among the 3"):
        main([str(train), "--update", str(val)])
    train.write_text(train.read_text().replace('"category_id": 5', '"category_id": 7'))
    with pytest.raises(
        UserError, match="annotation 14 is of category id 7, which `categories` does not list"
    ):
        main([str(train)])


def test_ids_as_strings_are_named(train):
    train.write_text(train.read_text().replace('"category_id": 5', '"category_id": "five"'))
    with pytest.raises(UserError, match=r"annotation 14: its `category_id` is 'five': expected `int`"):
        main([str(train)])


def test_lvis_cuts():
    assert [frequency_of(n) for n in (0, 10, 11, 100, 101)] == ["r", "r", "c", "c", "f"]


def change(path, apply):
    content = json.loads(path.read_text())
    apply(content)
    path.write_text(json.dumps(content))


def test_boxes_of_unlisted_images_are_not_counted(train, caplog):
    change(train, lambda c: c["images"].pop(0))
    main([str(train)])
    found = counts(train.with_name("lvis_v1_train_cat_info.json"))
    assert found[0] == ("red_square", 8, 8, "r")
    assert "2 annotations belong to images that it does not list and are skipped" in caplog.text


@pytest.mark.parametrize("cuts", [("100", "10"), ("-1", "10")])
def test_cuts_in_the_wrong_order_are_refused(train, cuts, capsys):
    with pytest.raises(SystemExit):
        main([str(train), "--cuts", *cuts])
    assert f"RARE {cuts[0]}" in capsys.readouterr().err


def test_a_fault_in_the_last_file_leaves_the_first_as_it_was(train, tmp_path):
    val = tiny.write_detection(tmp_path, "val", 3, first_id=100)
    val.write_text(val.read_text()[:-20])
    before = train.read_text()
    with pytest.raises(UserError, match=r"val\.json: ends early"):
        main([str(train), "--update", str(train), str(val)])
    assert train.read_text() == before
    assert sorted(p.name for p in train.parent.iterdir()) == sorted({train.name, val.name})


@pytest.mark.parametrize("entry", ["cat", {"id": 9}, {"name": "pink"}])
def test_a_category_without_id_or_name_is_named(train, entry):
    change(train, lambda c: c["categories"].append(entry))
    with pytest.raises(
        UserError,
        match=r"train\.json: category .*(cat|9|pink).*: (expected `object`|object missing required field)",
    ):
        main([str(train)])
