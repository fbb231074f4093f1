"""Files of weights that are damaged, or something else: each is one line that says what."""

import gzip
import random
import zipfile
from pathlib import Path

import pytest
import torch

from util.checksum import ChecksumError, check_zip
from util.errors import UserError
from util.torch_file import read_torch_file

CONTENT = {"weights": {f"w{i}": torch.arange(i, i + 300.0) for i in range(6)}, "names": ["cat", "dog"]}


def same(content) -> bool:
    weights, names = content["weights"], content["names"]
    return names == CONTENT["names"] and all(
        torch.equal(weights[k], v) for k, v in CONTENT["weights"].items()
    )


@pytest.fixture
def path(tmp_path) -> Path:
    torch.save(CONTENT, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def line(path: Path) -> str:
    """The message about a file, which is one line and names the file first."""
    with pytest.raises(UserError) as caught:
        read_torch_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert "weights_only" not in message, "advice to run the file's code"
    return message.removeprefix(f"{path}: ")


def test_a_flipped_bit_is_noticed_or_changes_nothing(path):
    whole, rng = path.read_bytes(), random.Random(0)
    noticed = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert same(read_torch_file(path))
        except UserError:
            noticed += 1
    # torch pads its records, and names them twice.
    assert noticed > 250


def test_every_byte_of_a_tensor_counts(path):
    whole = path.read_bytes()
    start = whole.index(CONTENT["weights"]["w3"].numpy().tobytes())
    for place in range(start, start + 1200, 50):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert line(path) == "damaged: its content does not match its checksum"


def test_a_zip_that_claims_to_span_disks_is_damaged(path):
    whole = path.read_bytes()
    place = whole.rindex(b"PK\x06\x07") + 16  # the number of disks, which zipfile asks for while it looks
    path.write_bytes(whole[:place] + b"\x07" + whole[place + 1 :])
    assert line(path) == "damaged: its content does not match its checksum"


def test_files_without_checksums_are_read(path):
    assert check_zip(path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(CONTENT, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert not check_zip(path) and same(read_torch_file(path))
    torch.save(CONTENT, path, _use_new_zipfile_serialization=False)
    assert not check_zip(path) and same(read_torch_file(path))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_compressed_records_are_not_unpacked(path, method):
    """Three megabytes of them could become many gigabytes."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    with pytest.raises(ChecksumError):
        check_zip(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is an empty file"),
        (b"\0" * 5000, "is a file of zeros"),
        (b"\n <!DOCTYPE html><html>Google Drive - Virus scan warning</html>", "is an HTML page"),
        (b"\xef\xbb\xbf<html>" + "äö".encode() * 400, "is an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML message"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "is a git-lfs pointer",
        ),
        (b"see the wiki\nfor weights", "is a text file (it begins 'see the wiki for weights')"),
        (gzip.compress(b"x" * 999, mtime=0), "is a gzip file"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 99, "is a PNG image"),
        (b"\x40" + b"\0" * 7 + b'{"w":{"dtype":"F32"' + b" " * 99, "is a safetensors file"),
    ],
)
def test_what_is_no_file_of_torch_is_named(tmp_path, content, words):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    assert line(path).startswith(words)


def test_cut_files_and_other_archives_are_named(path, tmp_path):
    whole = path.read_bytes()
    for length in (4, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert line(path) == f"is cut off after {length:,} bytes: the end of the file is missing"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.jpg", b"x")
    assert line(path) == "is a zip without weights (it holds 'photo.jpg')"
    torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    assert line(path).startswith("is a TorchScript program")
    path.write_bytes(b"\0" * 257 + b"ustar" + b"\0" * 500)
    assert line(path).startswith("is a tar archive")


def test_a_file_that_asks_for_code_is_told_so(tmp_path):
    torch.save({"model": Path("x")}, tmp_path / "w.pth")
    assert line(tmp_path / "w.pth").startswith("damaged, or not plain data (it asks for pathlib.")
    (tmp_path / "w.pth").write_bytes(b"\x80\x04\x95garbage")
    assert line(tmp_path / "w.pth") == "damaged, or not plain data (Unsupported operand 149)"
