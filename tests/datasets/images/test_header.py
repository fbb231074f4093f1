import io

import numpy as np
import pytest
from PIL import Image

from datasets.images.header import DamagedError, inspect, inspect_file
from datasets.images.preprocess import EncodedImage, ImageError


def encoded(kind, size=(37, 53), **options):
    """Noise of (height, width), so that nothing is trivially small."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def look(data, decode=False):
    return inspect(lambda offset, count: data[offset : offset + count], len(data), decode)


KINDS = [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("BMP", {}), ("GIF", {})]


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_sizes_are_those_of_the_pixels(kind, options, decode):
    assert look(encoded(kind, **options), decode).stored == (37, 53)
    # Larger than what is read of it at first.
    assert look(encoded(kind, (400, 300), **options), decode).stored == (400, 300)


def test_a_long_head_is_read_further():
    exif = Image.Exif()
    exif[0x010E] = "x" * 60000
    data = encoded("JPEG", (800, 600), exif=exif)
    reads = []

    def read(offset, count):
        reads.append(count)
        return data[offset : offset + count]

    assert inspect(read, len(data)).stored == (800, 600)
    assert sum(reads) < 100_000 < 300_000 < len(data), "not all of it is read"


def test_turned_images_keep_the_size_of_their_file():
    exif = Image.Exif()
    exif[0x0112] = 6
    found = look(encoded("JPEG", exif=exif))
    assert (found.stored, found.upright, found.orientation) == ((37, 53), (53, 37), 6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.99, 0.5, 0.01])
def test_cut_off_files_are_found_without_decoding_the_others(kind, share):
    data = encoded(kind, (200, 200))
    with pytest.raises(DamagedError, match="does not decode"):
        look(data[: int(len(data) * share)])


def test_what_follows_the_end_is_no_damage():
    assert look(encoded("JPEG") + b"\0" * 2000).stored == (37, 53)


@pytest.mark.parametrize(("data", "message"), [(b"", "is empty"), (b"<html>" * 50, "does not decode")])
def test_what_is_no_image(tmp_path, data, message):
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DamagedError, match=message):
        inspect_file(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("by zero"), KeyError(), RuntimeError("no"), MemoryError()]
)
def test_whatever_pillow_raises_is_damage(monkeypatch, error):
    def broken(_):
        raise error

    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(DamagedError, match=r"does not decode \(.+\)"):
        look(b"GIF89a" * 9)
    with pytest.raises(ImageError, match=r"a\.gif: does not decode \(.+\)"):
        EncodedImage(b"GIF89a" * 9, "a.gif")


def test_damage_within_is_found_by_decoding():
    data = bytearray(encoded("PNG", (100, 100)))
    data[len(data) // 2] ^= 255
    assert look(bytes(data)).stored == (100, 100)
    with pytest.raises(DamagedError):
        look(bytes(data), decode=True)
