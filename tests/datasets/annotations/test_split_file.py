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
    assert both.key_of("tools", alone=True) == both.key_of("tools", alone=False) == "tools"
    assert both.key_of("other", alone=True) == "other"
    one = SplitFile(0.2, 7, {"fruit": SETS["fruit"]})
    assert one.key_of("moved", alone=True) == "fruit" and one.key_of("moved", alone=False) == "moved"
    longer = {"a-set": SETS["fruit"], "c": SETS["tools"]}
    assert SplitFile(0.2, 7, longer).key_of("set", alone=True) == "a-set"
    assert SplitFile(0.2, 7, {**longer, "b-set": SETS["tools"]}).key_of("set", alone=True) == "set"
    assert SplitFile(0.2, 7).key_of("fruit", alone=True) == "fruit"


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
