"""Files that ask for too much: pixels, bytes, unpacking, other programs, names outside of the folder."""

import errno
import io
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from datasets.images.header import DamagedError, inspect_file
from datasets.images.preprocess import EncodedImage, ImageError
from datasets.images.reader import ImageFolder
from datasets.images.zip_index import open_zip
from inference.inputs import read_image
from tests.datasets.images.test_reader import jpeg, put
from util.errors import UserError


def test_16_bits_of_grey_keep_their_range():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    content = io.BytesIO()
    Image.fromarray(ramp).save(content, "PNG")
    pixels = EncodedImage(content.getvalue(), "x.png").decode()
    assert np.array_equal(pixels[..., 0], (ramp >> 8).astype(np.uint8)) and len(np.unique(pixels)) > 200
    content = io.BytesIO()
    Image.fromarray(np.ones((4, 4), np.float32)).save(content, "TIFF")
    with pytest.raises(ImageError, match=r"x.tif: .* floating-point"):
        EncodedImage(content.getvalue(), "x.tif").decode()


def png_of(width: int, height: int) -> bytes:
    """A small file that decodes to so many black pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    lines = zlib.compress(bytes(1 + 3 * width) * height, 9)
    parts = ((b"IHDR", header), (b"IDAT", lines), (b"IEND", b""))
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png_of(11_000, 11_000), "is 11000x11000: 121 million pixels, of 120 allowed"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "does not decode"),
        (
            jpeg(1, 8, 8).replace(b"\0\x08\0\x08\x03", b"\xfd\xe8\xfd\xe8\x03"),
            "does not decode|million pixels",
        ),
    ],
)
def test_images_beyond_the_limits(tmp_path, data, message):
    """The limits hold however an image is read."""
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    for read in (ImageFolder(tmp_path).read, lambda name: read_image(tmp_path / name)):
        with pytest.raises(ImageError, match=message):
            read("x.jpg")
    with pytest.raises(DamagedError, match=message):
        inspect_file(path)


def test_a_file_of_more_bytes_than_any_image_is_not_read(tmp_path):
    with open(tmp_path / "x.jpg", "wb") as file:
        file.truncate(2**31)
    with pytest.raises(ImageError, match=r"x\.jpg: cannot be read \(has 2048 MiB, of 1024 allowed"):
        ImageFolder(tmp_path).read("x.jpg")
    with pytest.raises(DamagedError, match="has 2048 MiB"):
        inspect_file(tmp_path / "x.jpg")


def test_whatever_a_decoder_raises_is_a_damaged_image(tmp_path, monkeypatch):
    put(tmp_path / "x.png", jpeg(1, 8, 8))
    for error in (MemoryError(), OSError("broken data stream"), ZeroDivisionError("x"), RecursionError()):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(Image.Image, "convert", fail)
        monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", fail)
        with pytest.raises(ImageError, match=r"x\.png: does not decode"):
            ImageFolder(tmp_path).read("x.png")


def test_too_many_open_files_are_no_damage(tmp_path, monkeypatch):
    put(tmp_path / "x.png", jpeg(1, 8, 8))

    def no_file(path):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("datasets.images.reader.read_file", no_file)
    with pytest.raises(
        UserError, match=r"x\.png: cannot be read \(Too many open files\); .* ulimit -n"
    ) as caught:
        ImageFolder(tmp_path).read("x.png")
    assert not isinstance(caught.value, ImageError)


@pytest.mark.parametrize("said", [10, 2**27, 2**40])
def test_a_zip_member_unpacks_to_no_more_than_its_header_says(tmp_path, said):
    content = bytes(2**27)
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.jpg", content)
    archive = open_zip(path)
    archive.columns[0, 2] = said
    tracemalloc.start()
    if said == len(content):
        assert archive.read(0) == content
    else:
        with pytest.raises(OSError, match=r"bytes that its header says|allowed"):
            archive.read(0)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_zip_members_whose_names_lead_out_are_skipped(tmp_path, caplog):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("../a.jpg", "/b.jpg", "n/../../c.jpg", "n/d.jpg"):
            file.writestr(name, b"1")
    archive = open_zip(path)
    assert [archive.names[i] for i in range(len(archive))] == ["n/d.jpg"]
    assert "3 members whose names lead out of it are skipped (first: '../a.jpg')" in caplog.text
