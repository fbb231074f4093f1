"""Lists of images and obj.data: what is written there is found, or named with its line."""

import json

import pytest

from datasets.annotations.discovery import find_detection, find_split, open_detection
from tests.layouts import yolo
from tests.layouts.drawn import as_drawn, as_read
from tools.doctor import main
from util.errors import UserError


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("data/obj_train_data/none.png", r"there is no image 'data/obj_train_data/none\.png'"),
        ("/elsewhere/none.png", "there is no image"),
        ("x" * 5000 + ".png", "there is no image"),
        ("data/obj_train_data/frame_000001", "is not the path of an image"),
    ],
)
def test_a_listed_image_that_does_not_exist_is_missing_not_damaged(tmp_path, line, message):
    yolo.cvat(tmp_path)
    path = tmp_path / "train.txt"
    path.write_text(f"# frames\n\n{path.read_text()}{line}\n{line}\n")
    with pytest.raises(UserError) as caught:
        open_detection(tmp_path, "train")
    said = str(caught.value)
    assert f"{path} line 7: " in said and "\n" not in said and len(said) < 600
    assert "2 such lines; the other 4 lead to images, as 'obj_train_data/frame_000000.png'" in said
    with pytest.raises(UserError, match=message):
        open_detection(tmp_path, "train")


def test_the_doctor_lists_every_line_without_an_image(tmp_path):
    yolo.cvat(tmp_path)
    path = tmp_path / "valid.txt"
    path.write_text(path.read_text().replace("frame_000005", "frame_5").replace("frame_000006", "frame_6"))
    found = tmp_path / "found.json"
    assert main([str(tmp_path), "--json", str(found), "--plot", str(tmp_path / "tail.png")]) == 2
    (finding,) = [f for f in json.loads(found.read_text()) if "invalid" in f["what"]]
    assert [e.partition(": ")[0] for e in finding["examples"]] == [f"{path} line 2", f"{path} line 3"]


def test_a_list_may_name_images_in_several_places(tmp_path):
    yolo.ultralytics(tmp_path)
    names = [f"images/train/frame_00000{i}.png" for i in range(4)]
    lines = [f"./{names[0]}", str(tmp_path / names[1]), f"/home/you/{names[2]}", names[3].replace("/", "\\")]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "some.txt").write_text("\n".join(lines))
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(text.replace("images/train", "lists/some.txt"))
    assert as_read(*open_detection(tmp_path, "train")) == as_drawn("train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("classes = 3\ntrain train.txt\n", r"obj\.data line 2: 'train train\.txt' is not `key = value`"),
        ("classes = 4\ntrain = train.txt\nnames = obj.names\n", r"nc is '4', but `names` has 3"),
        ("classes = 3\ntrain = train.txt\nnames = x.names\n", r"`names` is 'x\.names', neither"),
        (
            "classes = 3\ntrain = lists/train.txt\nnames = obj.names\n",
            r"its 'lists/train\.txt' does not exist",
        ),
    ],
)
def test_what_is_wrong_with_obj_data_is_named(tmp_path, content, message):
    yolo.cvat(tmp_path)
    (tmp_path / "obj.data").write_text(content)
    with pytest.raises(UserError, match=message):
        open_detection(tmp_path, "train")


def test_keys_and_files_may_be_named_as_subsets_are(tmp_path):
    """`Train`, as CVAT writes a subset that is called so; any key that it does not need."""
    yolo.cvat(tmp_path)
    path = tmp_path / "obj.data"
    path.write_text(path.read_text().replace("train = ", "Train = ") + "# end\n\n")
    assert as_read(*open_detection(path, "train")) == as_drawn("train")


def test_a_stated_split_that_does_not_exist_is_an_error_unless_it_is_always_written(tmp_path):
    yolo.roboflow_one(tmp_path)
    assert find_split(tmp_path, "val") is None
    path = tmp_path / "data.yaml"
    path.write_text(path.read_text().replace("../valid/images", "../validation/images"))
    with pytest.raises(UserError, match=r"'\.\./validation/images' does not exist"):
        find_detection(tmp_path, "val").read()
