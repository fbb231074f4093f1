"""What is written beside a run whose data has one split."""

import json

import pytest

from datasets.annotations.split_file import SPLIT_FILE, Split, SplitFile
from tests.datasets import tiny
from util.errors import UserError

SETS = {"fruit": Split(("a.jpg", "sub/c.jpg"), ("b.jpg",)), "tools": Split(("a.jpg",), ("é.jpg",))}


def test_it_is_read_as_it_was_written(tmp_path):
    assert SplitFile.read(tmp_path) is None
    SplitFile(0.25, 7, SETS).write(tmp_path / "run")
    assert SplitFile.read(tmp_path / "run") == SplitFile(0.25, 7, SETS)
    assert json.loads((tmp_path / "run" / SPLIT_FILE).read_text(encoding="utf-8"))["sets"]["tools"][
        "val"
    ] == ["é.jpg"]


def test_a_set_is_found_by_its_name_and_a_single_one_by_any():
    both = SplitFile(0.2, 7, SETS)
    assert both.of_set("tools", alone=True) == both.of_set("tools", alone=False) == SETS["tools"]
    assert both.of_set("other", alone=True) is None
    one = SplitFile(0.2, 7, {"fruit": SETS["fruit"]})
    assert one.of_set("moved", alone=True) == SETS["fruit"] and one.of_set("moved", alone=False) is None
    longer = SplitFile(0.2, 7, {"a-set": SETS["fruit"], "b-set": SETS["tools"], "c": SETS["tools"]})
    assert longer.of_set("set", alone=True) is None
    assert (
        SplitFile(0.2, 7, {"a-set": SETS["fruit"], "c": SETS["tools"]}).of_set("set", alone=True)
        == SETS["fruit"]
    )
    assert SplitFile(0.2, 7).of_set("fruit", alone=True) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "split.json: cannot be read"),
        ('{"val_share": 0.2}', "missing required field `seed`"),
        ('{"val_share": 2, "seed": 1}', "val_share is 2, but must be between 0 and 1"),
        ('{"val_share": 0.2, "seed": 1, "sets": {"a": {"train": [3], "val": []}}}', "Expected `str`"),
        (
            '{"val_share": 0.2, "seed": 1, "sets": {"a": {"train": ["x", "y"], "val": ["y"]}}}',
            "split.json: 'y' is in both `train` and `val` (1 such)",
        ),
    ],
)
def test_what_is_no_split_is_one_line(tmp_path, content, message):
    (tmp_path / SPLIT_FILE).write_text(content)
    with pytest.raises(UserError) as error:
        SplitFile.read(tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_it_divides_the_tables_whose_images_it_knows(tmp_path):
    table = tiny.table_of(tiny.detection_content(4, "train")[0], "train.json")
    names = [table.file_names[i] for i in range(4)]
    file = SplitFile(0.25, 7, {**SETS, "x": Split(("gone.jpg", *names[1:]), (names[0],))})
    train, val = file.parts(table)
    assert val.image_ids.tolist() == [1] and train.image_ids.tolist() == [2, 3, 4]
    with pytest.raises(UserError, match=r"not the data that split\.json divides"):
        SplitFile(0.25, 7, SETS).parts(table)
    with pytest.raises(UserError, match="cannot be read"):
        SplitFile.open(tmp_path / SPLIT_FILE)
