import json
import re
from pathlib import Path

import numpy as np
import pytest

from datasets.annotations.categories import ClassTable
from datasets.annotations.json_errors import load_json
from datasets.annotations.json_reader import read_annotations
from datasets.detection import TrainingBoxes
from tests.datasets import tiny
from util.errors import UserError


@pytest.fixture
def content():
    return tiny.detection_content(4, "train")[0]


def read(tmp_path, content):
    path = tmp_path / "lvis_v1_train.json"
    path.write_text(json.dumps(content))
    return read_annotations(path)


def test_columns_hold_what_the_file_says(tmp_path, content):
    content["images"].reverse()
    content["images"][0]["not_exhaustive_category_ids"] = [5, 2]
    store = read(tmp_path, content)
    assert store.image_ids.tolist() == [1, 2, 3, 4]
    assert store.size(2) == (60, 80)
    assert store.file_names[1] == "train2017/000000000002.png"
    last = store.rows(3)
    assert store.category_ids[store.category_index[last]].tolist() == [1, 2, 5]
    assert store.boxes_xywh[last].tolist() == [[13, 8, 20, 16], [40, 30, 12, 14], [4, 40, 16, 8]]
    assert store.areas[last].tolist() == [320, 168, 128]
    assert store.negatives[0].tolist() == [1, 2] and store.not_exhaustive[3].tolist() == [2, 1]
    assert store.federated and not store.crowd.any() and not store.ignore.any()
    assert store.image_index.tolist() == [0, 1, 1, 2, 3, 3, 3]


def test_file_name_wins_over_coco_url(tmp_path, content):
    content["images"][0]["file_name"] = "elsewhere/x.jpg"
    assert read(tmp_path, content).file_names[0] == "elsewhere/x.jpg"


def test_missing_counts_and_areas_are_made_up_for(tmp_path, content):
    content["categories"] = tiny.categories(image_counts=False)
    for annotation in content["annotations"]:
        del annotation["area"]
    content["annotations"].append(dict(content["annotations"][0], id=99))
    store = read(tmp_path, content)
    assert [c.image_count for c in store.categories] == [4, 2, 1]
    assert np.array_equal(store.areas, store.boxes_xywh[:, 2] * store.boxes_xywh[:, 3])


def test_coco_style_is_not_federated(tmp_path, content):
    for image in content["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    content["annotations"][0]["iscrowd"] = 1
    store = read(tmp_path, content)
    assert not store.federated and store.crowd.tolist() == [True] + [False] * 6


def test_labelled_classes_of_images_win_over_those_of_the_file(tmp_path, content):
    content["images"][1]["labelled_category_ids"] = [5, 1, 5]
    content["images"][2]["labelled_category_ids"] = []
    content["images"][3]["labelled_category_ids"] = [1, 5]
    store = read(tmp_path, content)
    assert store.judged_list.tolist() == [-1, 0, 1, 0] and len(store.judged) == 2
    assert [row.tolist() for row in store.judged] == [[0, 2], []]

    store = read(tmp_path, {"labelled_category_ids": [2], **content})
    assert tiny.judged_lists(store) == [[1], [0, 2], [], [0, 2]]
    assert tiny.judged_lists(store.without([1, 3]))[0] == [0, 2]


def test_labelled_classes_alone_make_it_federated(tmp_path, content):
    for image in content["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    assert read(tmp_path, {**content, "labelled_category_ids": []}).federated


def test_image_level_labels_and_no_annotations(tmp_path, content):
    content["annotations"] = []
    content["images"][1]["pos_category_ids"] = [5]
    store = read(tmp_path, content)
    assert store.positives.lengths.tolist() == [0, 1, 0, 0] and store.positives[1].tolist() == [2]
    assert store.boxes_xywh.shape == (0, 4) and store.box_offsets.tolist() == [0] * 5


def test_annotations_of_unlisted_images_are_counted_and_left_out(tmp_path, content, caplog):
    content["annotations"][1]["image_id"] = 77
    assert len(read(tmp_path, content).areas) == 6
    assert "1 annotations belong to images that it does not list" in caplog.text
    assert "annotation 2 of image 77" in caplog.text


def change(key, index, **values):
    def apply(content):
        content[key][index].update(values)

    return apply


def drop(key, index, name):
    def apply(content):
        del content[key][index][name]

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            change("annotations", 2, category_id=3),
            "annotation 3 is of category id 3, which `categories` does not",
        ),
        (
            change("annotations", 2, category_id="five"),
            "annotation 3: its `category_id` is 'five': expected `int`",
        ),
        (drop("annotations", 2, "image_id"), "annotation 3: object missing required field `image_id`"),
        (
            change("annotations", 2, bbox=[1, 2, 3]),
            r"annotation 3: its `bbox` is \[1, 2, 3\]: expected `array`",
        ),
        (
            change("annotations", 2, bbox=None, segmentation=[]),
            "annotation 3: has neither `bbox` nor `segmen",
        ),
        (change("images", 1, id="2a"), "image '2a': its `id` is '2a': expected `int`"),
        (change("images", 1, id=1), "image id 1 is listed 2 times"),
        (drop("images", 1, "coco_url"), "image 2: has neither `file_name` nor `coco_url`"),
        (change("images", 1, pos_category_ids=[4]), "image id 2: category id 4 of its `pos_category_ids`"),
        (change("images", 1, labelled_category_ids=[1, 4]), "image id 2: category id 4 of its `labelled_cat"),
        (
            lambda content: content.update(labelled_category_ids=[4]),
            "category id 4 of `labelled_category_ids` is not listed in `categories`",
        ),
        (
            lambda content: content.update(labelled_category_ids=[1, "x"]),
            "labelled_category_ids 'x': expected `int`",
        ),
        (
            lambda content: content.update(labelled_category_ids=1),
            "`labelled_category_ids` is not a list: 1",
        ),
        (change("categories", 1, id=1), "category id 1 is listed twice"),
        (lambda content: content["categories"].clear(), "class list is empty"),
        (lambda content: content.pop("images"), "not an annotation file"),
        (
            lambda content: content.update(annotation=content.pop("annotations")),
            "has no `annotations` but annotation, categories, images: rename the key",
        ),
    ],
)
def test_bad_content_is_one_line_with_file_and_id(tmp_path, content, spoil, message):
    spoil(content)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "lvis_v1_train.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_names_the_nearest_one(tmp_path, content):
    read(tmp_path, content)
    with pytest.raises(UserError, match=r"lvis_v1_trian.json: no such file.*'lvis_v1_train.json'"):
        read_annotations(tmp_path / "lvis_v1_trian.json")


def test_a_file_cut_anywhere_ends_early(tmp_path, content):
    content["images"][0]["flag"] = True
    text = json.dumps(content)
    path = tmp_path / "half.json"
    for length in range(0, len(text), 7):
        path.write_text(text[:length])
        with pytest.raises(UserError, match=r"half\.json: ends early"):
            read_annotations(path)


def test_something_else_than_json(tmp_path):
    path = tmp_path / "image.json"
    path.write_bytes(b"\xff\xd8\xff\xe0" * 100)
    with pytest.raises(UserError, match="not a JSON text file"):
        read_annotations(path)
    path.write_text('{"list": [1, 2,, 3], "images": [], "annotations": [], "categories": []}')
    with pytest.raises(UserError, match=r"not valid JSON \(line 1, column 16"):
        read_annotations(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            change("annotations", 2, area="large"),
            "annotation 3: its `area` is 'large': expected `float",
        ),
        (
            change("annotations", 2, image_id=2**70),
            "annotation 3: its `image_id` is 1180591620717411303424: expected `int` <=",
        ),
        (change("annotations", 2, image_id=[1]), r"annotation 3: its `image_id` is \[1\]: expected `int`"),
        (
            change("images", 1, neg_category_ids=["x"]),
            r"image 2: its `neg_category_ids` is \['x'\]: expected `int`",
        ),
        (change("images", 1, height="tall"), "image 2: its `height` is 'tall': expected `int"),
        (change("annotations", 2, id=True), "annotation True: its `id` is True: expected `int`, got `bool`"),
        (
            change("annotations", 2, bbox=["1", "2", "3", "4px"]),
            r"annotation 3: its `bbox` is \['1', '2', '3', '4px'\]: expected `float`",
        ),
        (
            change("annotations", 2, bbox=[[1, 2], [3, 4]]),
            r"annotation 3: its `bbox` is \[\[1, 2\], \[3, 4\]\]: expected `array`",
        ),
        (
            change("annotations", 2, bbox=[None, 2, 3, 4]),
            r"its `bbox` is \[None, 2, 3, 4\]: expected `float`",
        ),
        (
            change("annotations", 2, bbox=[10**400, 2, 3, 4]),
            r"annotation 3: its `bbox` is \[10000.*: number out of",
        ),
        (change("annotations", 2, iscrowd="2"), "annotation 3: its `iscrowd` is '2': expected 0 or 1, got"),
        (change("annotations", 2, iscrowd=2), "annotation 3: its `iscrowd` is 2: expected 0 or 1, got `int`"),
        (change("annotations", 2, iscrowd="no"), "annotation 3: its `iscrowd` is 'no': expected 0 or 1"),
        (change("annotations", 2, ignore=[0]), r"annotation 3: its `ignore` is \[0\]: expected 0 or 1, got"),
        (change("annotations", 2, area=10**400), "annotation 3: its `area` is 10000.*: number out of"),
        (
            change("images", 1, neg_category_ids=5),
            "image 2: its `neg_category_ids` is 5: expected `array",
        ),
        (change("images", 1, file_name=5), "image 2: its `file_name` is 5: expected `str | null`"),
        (change("images", 1, coco_url=5), "image 2: its `coco_url` is 5: expected `str | null`"),
        (
            change("images", 1, file_name="\ud800.jpg"),
            r"image 2: `file_name` holds half of a character",
        ),
        (change("images", 1, width=float("nan")), "image 2: its `width` is nan: expected `int"),
        (change("images", 1, width=2**31), "image 2: its `width` is 2147483648: expected `int` <"),
        (change("images", 1, width=80.5), "image 2: its `width` is 80.5: expected `int"),
        (change("images", 1, height=-1), "image 2: its `height` is -1: expected `int` >= 0"),
        (change("categories", 1, id=2**70), "its `id` is 1180591620717411303424: expected `int` <="),
        (
            change("categories", 1, frequency="\ud800"),
            r"category 2: its `frequency` is '\\ud800': holds half of a character",
        ),
        (
            change("categories", 1, name="\ud800"),
            r"category 2: its `name`, '\\ud800', is no line of text",
        ),
        (change("categories", 1, synonyms=5), "its `synonyms` is 5: expected `array`"),
        (change("categories", 1, image_count="9.5"), "its `image_count` is '9.5': expected `int | null`"),
        (change("categories", 1, image_count=-1), "its `image_count` is -1: expected `int` >= 0"),
        (change("categories", 1, name=True), "category 2: its `name` is True: expected `str`"),
        (change("categories", 1, name=" "), "category 2: its `name` is ' ': expected `str` of length >= 1"),
        (
            change("categories", 1, frequency="rare"),
            "its `frequency` is 'rare': expected r, c or f",
        ),
        (lambda content: content["images"].insert(2, 7), "image 7: expected `object`, got `int`"),
        (lambda content: content.update(annotations={"1": {}}), "`annotations` is not a list"),
        (lambda content: content.update(categories=None), "class list is empty"),
    ],
)
def test_values_of_the_wrong_kind_are_named(tmp_path, content, spoil, message):
    spoil(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path, content)


def test_numbers_and_flags_that_are_text_are_read_as_what_they_mean(tmp_path, content):
    """As exports from spreadsheets and databases have them."""
    expected = read(tmp_path, content)

    def text(value):
        return [text(v) for v in value] if isinstance(value, list) else str(value)

    def whole_floats(value):
        return [whole_floats(v) for v in value] if isinstance(value, list) else float(value)

    keys = {
        "images": ("id", "height", "width", "neg_category_ids", "not_exhaustive_category_ids"),
        "annotations": ("id", "image_id", "category_id", "bbox", "area"),
        "categories": ("id", "image_count"),
    }
    for change in (text, whole_floats):
        changed = json.loads(json.dumps(content))
        for kind, names in keys.items():
            for row in changed[kind]:
                row.update({name: change(row[name]) for name in names if name in row})
        table = read(tmp_path, changed)
        for column in ("image_ids", "sizes", "boxes_xywh", "areas", "category_index", "annotation_ids"):
            assert np.array_equal(getattr(table, column), getattr(expected, column)), column
        assert table.categories == expected.categories
        assert np.array_equal(table.negatives.values, expected.negatives.values)


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
@pytest.mark.parametrize("indent", [None, 1])
def test_flags_are_what_they_say(tmp_path, content, key, indent):
    values = [0, "0", False, "false", None, 1, "1", True, "True"]
    content["annotations"] = [dict(content["annotations"][0], id=i) for i in range(1, 10)]
    for row, value in zip(content["annotations"], values, strict=True):
        row[key] = value
    table = read(tmp_path, content)
    column = table.crowd if key == "iscrowd" else table.ignore
    assert column.tolist() == [False] * 5 + [True] * 4


@pytest.mark.parametrize(
    ("name", "read_as"), [(7, "7"), (" oat milk ", "oat milk"), ("true", "true"), ("\u8f66", "\u8f66")]
)
def test_names_of_classes_are_text_without_the_spaces_around(tmp_path, content, name, read_as):
    content["categories"][1]["name"] = name
    assert read(tmp_path, content).categories[1].name == read_as


def test_a_box_with_nan_is_read_and_left_out_later(tmp_path, content):
    content["annotations"][2]["bbox"][0] = float("nan")
    content["annotations"][3]["area"] = float("nan")
    table = read(tmp_path, content)
    assert np.isnan(table.boxes_xywh).sum() == 1 and len(table.areas) == 7
    boxes = TrainingBoxes(table, ClassTable.from_categories(table.categories))
    assert len(boxes) == 6


def test_annotation_ids_that_occur_twice_are_counted_and_kept(tmp_path, content, caplog):
    content["annotations"][3]["id"] = 2
    assert len(read(tmp_path, content).areas) == 7
    assert "1 annotation ids occur more than once (first: 2)" in caplog.text


def test_an_image_under_two_ids_is_reported(tmp_path, content, caplog):
    content["images"][2]["coco_url"] = content["images"][0]["coco_url"]
    assert len(read(tmp_path, content)) == 4
    assert "1 images are listed under several ids (first: train2017/000000000001.png)" in caplog.text


def test_class_names_that_look_alike_are_reported(tmp_path, content, caplog):
    content["categories"][1]["name"] = "Red square"
    assert ClassTable.from_categories(read(tmp_path, content).categories).names[1] == "Red square"
    assert "'red_square' and 'Red square' differ only in case" in caplog.text


@pytest.mark.parametrize(
    ("value", "message"),
    [("1" * 5000, "an integer of too many digits"), ("[" * 10**5 + "]" * 10**5, "nested too")],
)
def test_what_the_parser_refuses_is_named_with_its_place(tmp_path, content, value, message):
    path = tmp_path / "lvis_v1_train.json"
    path.write_text(re.sub(r'"area": [\d.]+', f'"area": {value}', json.dumps(content), count=1))
    with pytest.raises(UserError, match=rf"train\.json: is not valid JSON \(line 1, column .*{message}"):
        read_annotations(path)
    with pytest.raises(UserError, match=message):
        load_json(path)


def test_counts_that_are_there_stay_where_another_class_lacks_its_own(tmp_path, content):
    content["categories"][0]["image_count"] = 70
    del content["categories"][1]["image_count"]
    assert [c.image_count for c in read(tmp_path, content).categories[:2]] == [70, 2]


def test_a_repeated_image_is_named_with_its_own_count(tmp_path, content):
    content["images"] += [content["images"][0], content["images"][1], content["images"][1]]
    with pytest.raises(UserError, match="image id 1 is listed 2 times"):
        read(tmp_path, content)


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="needs a file that cannot be read")
def test_a_file_that_cannot_be_read_is_named():
    for reader in (read_annotations, load_json):
        with pytest.raises(UserError, match="/proc/self/mem: cannot be read"):
            reader(Path("/proc/self/mem"))
