import tarfile

import pytest

from datasets.images.class_sources import class_root, find_class_sources, images_below, is_image
from datasets.images.header import DamagedError
from tests.datasets import tiny
from util.errors import UserError


def image(path, size=(40, 50)):
    tiny.draw(path, size, [])
    return path


def tar(path, members):
    """A tar of small images: member name -> (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, size in members.items():
            file.add(image(path.parent / ".scratch.png", size), name)
    return path


def listed(root):
    """Class -> (name, size) of its images."""
    opened = [(c.name, c.open()) for c in find_class_sources(root)]
    return {name: [(f.name, c.inspect(f).stored) for f in c.files()] for name, c in opened}


def test_folders_and_tars_of_classes_give_the_same_names(tmp_path):
    image(tmp_path / "folder/b/deep/2.png")
    image(tmp_path / "folder/b/1.png", (20, 30))
    tar(tmp_path / "flat/b.tar", {"deep/2.png": (40, 50), "1.png": (20, 30), "readme.txt": (1, 1)})
    tar(tmp_path / "named/b.tar", {"b/deep/2.png": (40, 50), "b/1.png": (20, 30)})
    expected = {"b": [("b/1.png", (20, 30)), ("b/deep/2.png", (40, 50))]}
    for kind in ("folder", "flat", "named"):
        assert listed(tmp_path / kind) == expected


def test_a_folder_wins_over_a_tar_of_its_name(tmp_path):
    image(tmp_path / "a/1.png")
    tar(tmp_path / "a.tar", {"2.png": (1, 1)})
    tar(tmp_path / "b.tar", {"3.png": (1, 1)})
    assert {c: [n for n, _ in files] for c, files in listed(tmp_path).items()} == {
        "a": ["a/1.png"],
        "b": ["b/3.png"],
    }


@pytest.mark.parametrize(
    ("members", "names"),
    [
        (["a/1.png", "b/2.png", "b/deep/3.png"], {"a": ["a/1.png"], "b": ["b/2.png", "b/deep/3.png"]}),
        # The tar's own name in front is how it was packed, not where the image is.
        (["images/a/1.png", "images/b/2.png"], {"a": ["a/1.png"], "b": ["b/2.png"]}),
        (["x/y/a/1.png", "x/y/b/2.png"], {"a": ["x/y/a/1.png"], "b": ["x/y/b/2.png"]}),
        (
            ["ab/1.png", "ac/2.png", "abc/3.png"],
            {"ab": ["ab/1.png"], "abc": ["abc/3.png"], "ac": ["ac/2.png"]},
        ),
        (["a/1.png", "a/2.png"], {"a": ["a/1.png", "a/2.png"]}),
        (["images/a/1.png"], {"a": ["a/1.png"]}),
        (["a/1.png", "loose.png"], {"a": ["a/1.png"]}),
    ],
)
def test_one_tar_holds_the_folders_of_all_classes(tmp_path, members, names):
    path = tar(tmp_path / "images.tar", dict.fromkeys(members, (8, 9)))
    assert {c: [n for n, _ in files] for c, files in listed(path).items()} == names
    assert all(size == (8, 9) for files in listed(path).values() for _, size in files)


@pytest.mark.parametrize("top", ["images", "x/images"])
def test_a_image_beside_the_classes_of_a_big_tar_is_left_out(tmp_path, caplog, top):
    members = [f"{top}/cover.png", f"{top}/a/1.png", f"{top}/b/2.png"]
    path = tar(tmp_path / "images.tar", dict.fromkeys(members, (8, 9)))
    assert list(listed(path)) == ["a", "b"]
    assert "images.tar: 1 images outside any class folder are ignored" in caplog.text


def test_tars_and_zips_that_are_not_used_are_named(tmp_path, caplog):
    image(tmp_path / "a/1.png")
    tar(tmp_path / "a.tar", {"2.png": (1, 1)})
    (tmp_path / "b.zip").touch()
    assert list(listed(tmp_path)) == ["a"]
    assert "1 tars are not used: a folder has the same name (first: a.tar)" in caplog.text
    assert "1 zips are not used: unpack them or convert them to tars (first: b.zip)" in caplog.text


def test_folders_that_are_links_are_followed_but_not_in_circles(tmp_path):
    image(tmp_path / "elsewhere/deep/1.png")
    (tmp_path / "classes/a").mkdir(parents=True)
    (tmp_path / "classes/a/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/deep/back").symlink_to(tmp_path / "elsewhere")
    assert [n for n, _ in listed(tmp_path / "classes")["a"]] == ["a/link/deep/1.png"]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    image(tmp_path / "a/deep/1.png")

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refused)  # root may read everything
    with pytest.raises(UserError, match=r"/a: Permission denied"):
        images_below(tmp_path / "a")


def test_a_tar_of_tars_says_what_to_do(tmp_path):
    tar(tmp_path / "whole.tar", {"w/n1.tar": (1, 1), "w/n2.tar": (1, 1)})
    with pytest.raises(UserError, match=r"whole\.tar: contains 2 tars \(first: w/n1\.tar\); unpack it once"):
        find_class_sources(tmp_path / "whole.tar")


def test_a_damaged_member_is_told_from_its_neighbours(tmp_path):
    good = image(tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(good[: len(good) // 2])
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name in ("good.png", "cut.png"):
            file.add(tmp_path / name, name)
    (source,) = find_class_sources(tmp_path)
    opened = source.open()
    cut, whole = opened.files()
    assert opened.inspect(whole).stored == (40, 50)
    with pytest.raises(DamagedError, match="does not decode"):
        opened.inspect(cut)


@pytest.mark.parametrize(
    ("entries", "root"),
    [
        (["red/", "green/"], "."),
        (["images/red/"], "images"),
        (["images/red.tar"], "images"),
        (["images.tar"], "images.tar"),
        (["train/red/", "val/red/"], "train"),
        (["train/", "bus/"], "."),
        (["red.tar"], "."),
        ([], None),
        ([".hidden/"], None),
    ],
)
def test_where_the_classes_lie(tmp_path, entries, root):
    for entry in entries:
        path = tmp_path / entry
        (path if entry.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not entry.endswith("/"):
            path.touch()
    assert class_root(tmp_path) == (tmp_path / root if root else None)


def test_what_a_image_is_called():
    assert is_image("a/b.JPEG") and is_image("b.webp")
    assert not is_image("a/._b.jpg") and not is_image("jpg") and not is_image("a.jpg/readme.txt")
