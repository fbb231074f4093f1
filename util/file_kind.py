"""What a file is that should hold weights and does not, in words for a message."""

from __future__ import annotations

import codecs
import zipfile
from pathlib import Path

_ZIP = b"PK\x03\x04"
# First bytes -> what begins with them.
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"\xfd7zXZ\x00", "an xz file: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstandard file: unpack it first"),
    (b"BZh", "a bzip2 file: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "a git-lfs pointer, not the file that it stands for: run git lfs pull"),
)
_TAR = (257, b"ustar")
_HEAD = 512


def describe(path: Path) -> str | None:
    """Why a file holds no weights, for example "is an HTML page, ..."; None where it may hold some.

    Looks at its first bytes and, in a zip, at the list of members. Raises OSError where it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "is an empty file"
    if head.startswith(_ZIP):
        return _describe_zip(path)
    for start, name in _STARTS:
        if head.startswith(start):
            return f"is {name}"
    if head[_TAR[0] :].startswith(_TAR[1]):
        return "is a tar archive: unpack it first"
    if not head.strip(b"\0"):
        return "is a file of zeros: it was not written to the end"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return "is a safetensors file: give it a name that ends in .safetensors"
    return _describe_text(head)


def _describe_zip(path: Path) -> str | None:
    try:
        if not zipfile.is_zipfile(path):
            return f"is cut off after {path.stat().st_size:,} bytes: the end of the file is missing"
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # Its directory is damaged; the checksums tell.
        return None
    if any(name.endswith("/constants.pkl") for name in names):
        return "is a TorchScript program, not a file of weights"
    if not any(name.endswith("/data.pkl") for name in names):
        return f"is a zip without weights{f' (it holds {names[0]!r})' if names else ''}"
    return None


def _describe_text(head: bytes) -> str | None:
    """Pickles begin with a byte that no text has."""
    try:
        # The head may end within a character.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return None
    if any(ord(c) < 32 and c not in "\t\n\r\f" for c in text):
        return None
    start = text.lstrip().lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<body", "<script")):
        return "is an HTML page, which a server sent in place of the file"
    if start.startswith(("<?xml", "<error")):
        return "is an XML message, which a server sent in place of the file"
    words = " ".join(text.split())
    return f"is a text file (it begins {words[:40]!r})"
