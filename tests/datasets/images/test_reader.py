import io
import pickle
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.annotations.discovery import open_detection
from datasets.images.preprocess import EncodedImage
from datasets.images.reader import ImageError, ImageFolder
from datasets.images.zip_index import open_zip
from tests.datasets import tiny
from tests.datasets.test_build import build, fingerprint
from util.errors import UserError


def jpeg(level: int, height: int = 16, width: int = 24, **options) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), (level, level, level)).save(content, "JPEG", **options)
    return content.getvalue()


def level_of(images: ImageFolder, name: str) -> int:
    return int(images.read(name)[0, 0, 0])


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def tar(archive: Path, folder: Path, *members: str) -> None:
    subprocess.run(["tar", "-C", folder, "-cf", archive, *members], check=True)


@pytest.fixture
def root(tmp_path):
    """Two classes of two images; grey levels tell them apart."""
    for number in range(4):
        put(tmp_path / "images" / f"n0{number // 2}" / f"{number}.JPEG", jpeg(40 * number))
    return tmp_path / "images"


NAMES = [f"n0{number // 2}/{number}.JPEG" for number in range(4)]


def packed(root: Path, how: str) -> None:
    """The folders of `root` as archives."""
    if how == "tar a class, class in the names":
        for name in ("n00", "n01"):
            tar(root / f"{name}.tar", root, name)
    elif how == "tar a class, bare names":
        for name in ("n00", "n01"):
            tar(root / f"{name}.tar", root / name, ".")
    elif how == "one tar":
        tar(root.parent / "images.tar", root, ".")
    elif how == "one tar, folder in the names":
        tar(root.parent / "images.tar", root.parent, "images")
    elif how == "one zip":
        shutil.make_archive(str(root), "zip", root)
    elif how == "stored zip a class, like COCO's":
        for name in ("n00", "n01"):
            with zipfile.ZipFile(root / f"{name}.zip", "w") as file:
                for path in sorted((root / name).iterdir()):
                    file.write(path, f"{name}/{path.name}")
    elif how == "a folder and a tar":
        tar(root / "n01.tar", root, "n01")
        shutil.rmtree(root / "n01")
        return
    for folder in (root / "n00", root / "n01"):
        shutil.rmtree(folder)
    if how.startswith("one"):
        root.rmdir()


@pytest.mark.parametrize(
    "how",
    [
        "tar a class, class in the names",
        "tar a class, bare names",
        "one tar",
        "one tar, folder in the names",
        "one zip",
        "stored zip a class, like COCO's",
        "a folder and a tar",
    ],
)
def test_images_are_read_from_where_they_are(root, how):
    packed(root, how)
    images = ImageFolder(root)
    images.open_archives()
    for given in (images, pickle.loads(pickle.dumps(images)), ImageFolder(root)):
        assert [level_of(given, name) for name in NAMES] == pytest.approx([0, 40, 80, 120], abs=1)
        with pytest.raises(ImageError, match=r"n00/9\.JPEG: no such image$"):
            given.read("n00/9.JPEG")


def test_a_file_wins_over_the_tar(root):
    tar(root / "n00.tar", root, "n00")
    put(root / "n00" / "1.JPEG", jpeg(200))
    (root / "n00" / "0.JPEG").unlink()
    images = ImageFolder(root)
    assert level_of(images, "n00/1.JPEG") == 200
    assert level_of(images, "n00/0.JPEG") == 0


@pytest.mark.parametrize("how", ["folder", "tar a class, bare names"])
def test_a_name_that_differs_by_its_ending_is_named(root, how):
    if how != "folder":
        packed(root, how)
    with pytest.raises(ImageError, match=r"n01/2\.jpg: no such image; there is n01/2\.JPEG$"):
        ImageFolder(root).read("n01/2.jpg")


def test_an_ending_that_lies_does_not_matter(root):
    content = io.BytesIO()
    Image.new("L", (5, 4), 77).save(content, "PNG")
    put(root / "n00" / "0.JPEG", content.getvalue())
    assert np.unique(ImageFolder(root).read("n00/0.JPEG", (4, 5))).tolist() == [77]


@pytest.mark.parametrize("how", ["one tar", "one zip", "stored zip a class, like COCO's"])
def test_a_damaged_member_is_named(root, how):
    put(root / "n00" / "1.JPEG", b"a" * 400)
    packed(root, how)
    for archive in root.parent.rglob("*.zip"):
        with zipfile.ZipFile(archive) as file:
            entries = {Path(e.filename).name: e for e in file.infolist()}
        if entry := entries.get("2.JPEG"):
            content = bytearray(archive.read_bytes())
            content[entry.header_offset + 60 + len(entry.filename)] ^= 0xFF
            archive.write_bytes(content)
    images = ImageFolder(root)
    with pytest.raises(ImageError, match=r"(images\....|n00\.zip): .*1\.JPEG: does not decode"):
        images.read("n00/1.JPEG")
    if "zip" in how:
        with pytest.raises(ImageError, match=r"\.zip: .*2\.JPEG: cannot be read \((does not|wrong checksum)"):
            images.read("n01/2.JPEG")
    assert level_of(images, "n01/3.JPEG") == 120


def test_archives_of_no_listed_image_stay_closed_and_bad_ones_are_warned_of(root, caplog):
    packed(root, "tar a class, bare names")
    put(root / "n01.tar", b"half of a download" * 100)
    put(root / "backup.tar", b"half of a download" * 100)
    put(root / "test2017.zip", b"half of a download" * 100)
    images = ImageFolder(root)
    images.open_archives(NAMES)
    assert level_of(images, NAMES[1]) == pytest.approx(40, abs=1)
    for name in NAMES[2:]:
        with pytest.raises(ImageError, match=r"n01/\d\.JPEG: no such image"):
            images.read(name)
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert line.startswith(f"{root / 'n01.tar'}: not a tar file (") and line.endswith(
        "; its images are missing"
    )


def test_training_opens_only_what_it_needs(tmp_path, caplog):
    data = tiny.write_all(tmp_path)
    put(data / "lvis_v1" / "test2017.zip", b"half of a download" * 100)
    assert len(open_detection(data, "train")[0]) and "test2017" not in caplog.text


def test_zips_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match=r"a\.zip: No such file"):
        open_zip(tmp_path / "a.zip")
    with pytest.raises(UserError, match=f"{tmp_path.name}: Is a directory"):
        open_zip(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("x.jpg", b"1")
    with pytest.raises(UserError, match=r"a\.zip: x\.jpg is not compressed by deflate"):
        open_zip(tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-10])
    with pytest.raises(UserError, match=r"a\.zip: not a zip file, or truncated"):
        open_zip(tmp_path / "a.zip")


def test_orientation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = EncodedImage(jpeg(50, 16, 24, exif=exif), "x.jpg")
    assert image.size == (16, 24) and image.decode().shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("at_least", "decoded"),
    [
        (None, (960, 1281)),
        ((481, 600), (960, 1281)),
        ((480, 640), (480, 641)),
        ((400, 300), (480, 641)),
        ((240, 320), (240, 321)),
        ((1, 1), (120, 161)),
        ((2000, 3000), (960, 1281)),
    ],
)
def test_a_jpeg_is_decoded_at_the_scale_that_is_needed(at_least, decoded):
    encoded = EncodedImage(jpeg(50, 960, 1281), "x.jpg")
    image = encoded.decode(at_least)
    assert image.shape[:2] == decoded and encoded.size == (960, 1281)
    assert np.unique(image).tolist() == [50]


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P"])
def test_every_mode_becomes_rgb(mode):
    content = io.BytesIO()
    Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode).save(content, "TIFF")
    image = EncodedImage(content.getvalue(), "x").decode((2, 2))
    assert image.shape == (4, 4, 3) and np.unique(image).tolist() == [255]


def test_training_from_tars_gives_the_batches_of_training_from_folders(tmp_path):
    data = tiny.write_all(tmp_path)
    loaders = build(data), build(data)
    expected = [fingerprint(p.train_loader) + fingerprint(p.val_loader) for p in loaders]
    assert expected[0] == expected[1]
    for folder in ("train2017", "val2017"):
        tar(data / "lvis_v1" / f"{folder}.tar", data / "lvis_v1", folder)
        shutil.rmtree(data / "lvis_v1" / folder)
    images = data / "imagenet-lvis" / "images"
    for name in [p.name for p in images.iterdir()]:
        tar(images / f"{name}.tar", images / name, ".")
        shutil.rmtree(images / name)
    parts = build(data, num_workers=2)
    assert fingerprint(parts.train_loader) + fingerprint(parts.val_loader) == expected[0]
    assert parts.train_loader.damaged() == []


def test_a_missing_image_of_a_tar_is_counted(tmp_path):
    data = tiny.write_all(tmp_path)
    folder = data / "lvis_v1" / "train2017"
    (folder / "000000000003.png").unlink()
    put(folder / "000000000004.png", b"no image" * 100)
    tar(data / "lvis_v1" / "train2017.tar", data / "lvis_v1", "train2017")
    shutil.rmtree(folder)
    loader = build(data).train_loader
    for epoch in range(3):
        loader.set_epoch(epoch)
        assert len(list(loader)) == len(loader)
    assert (loader.missing(), loader.damaged()) == ([f"train2017/{3:012d}.png"], [f"train2017/{4:012d}.png"])
