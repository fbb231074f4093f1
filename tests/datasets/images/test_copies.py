"""Copies of image files, by their bytes."""

from datasets.images.copies import copies_among
from datasets.images.reader import ImageFolder


def test_only_equal_files_are_copies(tmp_path):
    start = bytes(20_000)
    contents = {
        "b.jpg": b"red",
        "a/c.jpg": b"red",
        "d.jpg": b"red",
        "other.jpg": b"ref",
        "long1.jpg": start + b"1",
        "long2.jpg": start + b"2",
        "long3.jpg": start + b"2",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.jpg").symlink_to("long1.jpg")
    found = copies_among(ImageFolder(tmp_path), [*contents, "link.jpg", "missing.jpg"])
    assert found == {
        "b.jpg": "a/c.jpg",
        "d.jpg": "a/c.jpg",
        "long3.jpg": "long2.jpg",
        "long1.jpg": "link.jpg",
    }


def test_links_out_of_the_data_are_not_looked_at(tmp_path):
    for folder in ("data", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "elsewhere" / "x.jpg").write_bytes(b"red")
    (tmp_path / "data" / "a.jpg").write_bytes(b"red")
    (tmp_path / "data" / "b.jpg").symlink_to("../elsewhere/x.jpg")
    assert copies_among(ImageFolder(tmp_path / "data", tmp_path / "data"), ["a.jpg", "b.jpg"]) == {}
    assert copies_among(ImageFolder(tmp_path / "data"), ["a.jpg", "b.jpg"]) == {"b.jpg": "a.jpg"}
