"""Names and links that lead out of the data folder: what is read, and what only with --allow_outside."""

import json
from pathlib import Path

import pytest

from datasets.annotations.discovery import open_detection
from datasets.images.preprocess import ImageError
from tests.datasets import tiny
from tests.datasets.annotations.test_yolo import write_yolo
from tests.tools.test_doctor import diagnose
from util.errors import UserError


@pytest.fixture
def data(tmp_path) -> Path:
    return tiny.write_all(tmp_path / "DATA", train=5, val=3)


def moved(path: Path, target: Path) -> None:
    """The file or folder goes to `target`; a link to it stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    path.symlink_to(target)


def rename_first(data: Path, name: str) -> None:
    path = data / "lvis_v1" / "annotations" / "lvis_v1_train.json"
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = name
    path.write_text(json.dumps(content))


def first_image(data: Path, **options):
    table, images = open_detection(data, "train", **options)
    return images.read(table.file_names[0])


FIRST = "lvis_v1/train2017/000000000001.png"


@pytest.mark.parametrize("absolute", [False, True])
def test_names_that_lead_out_are_refused_at_the_start(data, tmp_path, absolute):
    (data / FIRST).rename(tmp_path / "x.png")
    name = str(tmp_path / "x.png") if absolute else "../../x.png"
    rename_first(data, name)
    with pytest.raises(UserError, match=r"lvis_v1_train\.json: the image name .* leads out .*\(1 such\)"):
        open_detection(data, "train")
    assert first_image(data, allow_outside=True).shape == (60, 80, 3)


@pytest.mark.parametrize(
    ("link", "target", "read"),
    [
        (FIRST, "elsewhere/x.png", False),
        (FIRST, "DATA/store/x.png", True),  # inside of the data folder
        ("lvis_v1/train2017", "elsewhere/train2017", True),  # a split on another disk
        ("lvis_v1", "elsewhere/lvis", True),
        ("lvis_v1/train2017/deep", "elsewhere/deep", False),
    ],
)
def test_links(data, tmp_path, link, target, read):
    if link.endswith("deep"):
        (data / link).mkdir()
        (data / FIRST).rename(data / link / "x.png")
        rename_first(data, "train2017/deep/x.png")
    moved(data / link, tmp_path / target)
    if not read:
        with pytest.raises(ImageError, match=r"\.png: is a link to .*elsewhere.*, which is outside of"):
            first_image(data)
    assert first_image(data, allow_outside=not read).shape == (60, 80, 3)


def test_a_data_folder_that_is_a_link(data, tmp_path):
    (tmp_path / "link").symlink_to(data)
    assert first_image(tmp_path / "link").shape == (60, 80, 3)


def test_the_doctor_finds_them_too(data, tmp_path):
    moved(data / FIRST, tmp_path / "elsewhere" / "x.png")
    outside = "1 images lie outside of the data folder"
    _, findings = diagnose(data)
    (examples,) = [e for _, _, what, e in findings if what == outside]
    assert examples[0].startswith("train2017/000000000001.png: is a link to ")
    assert outside not in [what for _, _, what, _ in diagnose(data, "--allow_outside")[1]]


def test_paths_of_a_yaml_file_may_lead_anywhere_but_not_names_in_its_lists(tmp_path):
    write_yolo(tmp_path / "far")
    (tmp_path / "near").mkdir()
    yaml = tmp_path / "near" / "data.yaml"
    yaml.write_text((tmp_path / "far" / "data.yaml").read_text().replace("images/", "../far/images/"))
    table, images = open_detection(yaml, "train")
    assert len(table) == 6 and len(table.boxes_xywh) == 7
    assert images.read(table.file_names[0]).shape == (60, 80, 3)
    listed = tmp_path / "near" / "train.txt"
    listed.write_text("\n".join(str(p) for p in (tmp_path / "far" / "images" / "train").glob("*.png")))
    yaml.write_text(yaml.read_text().replace("../far/images/train", "train.txt"))
    with pytest.raises(UserError, match=r"the image name '\.\./far/images.* \(6 such\)"):
        open_detection(yaml, "train")
    assert len(open_detection(yaml, "train", allow_outside=True)[0]) == 6


def test_names_that_no_file_has_are_missing_images(data):
    for name in ("n" * 5000 + ".png", "a\0b.png"):
        rename_first(data, name)
        with pytest.raises(ImageError, match="no such image"):
            first_image(data)
