"""Checks of the image files: present, whole, of the stated size."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from datasets.images.damaged import too_many_damaged
from datasets.images.exif import UPRIGHT, Reader
from datasets.images.header import DamagedError, Header, inspect, open_parts
from datasets.images.preprocess import EncodedImage, ImageError
from datasets.images.reader import ImageFolder
from datasets.images.turned import HOW_READ
from tools.data_doctor.findings import Finding, Severity, found
from util.pixels import Size

# Waiting for the disk and Pillow's decoding both release the GIL.
_THREADS = 2 * (os.cpu_count() or 1)
_BLOCK = 10_000
# Images that a thread is given at a time: handing over one takes as long as looking at it.
_AT_ONCE = 32
# Bytes at the start of a file that tell it from others of its length.
_DIGESTED = 1 << 14
# Modes of Pillow that training may refuse as it decodes an image.
_DOUBTFUL = ("F", "I")
_MISSING, _DAMAGED, _WRONG_SIZE = "are missing", "are damaged", "differ from their stated size"
_OUTSIDE = "lie outside of the data folder"
# What is wrong with images -> the fix.
_FAULTS = {
    _MISSING: "copy them to {root}, or remove them from the annotations",
    _DAMAGED: "copy them again from the source",
    _OUTSIDE: "put them into it, or a link to their whole folder (docs/data.md, names and links)",
    _WRONG_SIZE: "the boxes do not fit them: use the original images, or correct width and height",
}


class ImageCheck(NamedTuple):
    """The result for one image.

    fault: '' or a key of _FAULTS.  message: says more.  size: (height, width), 0 if unknown.
    digest: of the file's length and first bytes, b"" if it was not read; the same for copies of an image.
    turned: how an image with an EXIF orientation is read, else ''.  mode: Pillow's name of its pixels' form.
    """

    name: str
    fault: str = ""
    message: str = ""
    size: Size = (0, 0)
    digest: bytes = b""
    turned: str = ""
    mode: str = ""


@dataclass(frozen=True)
class ImageReport:
    """All images of a part of the data. where: its name."""

    where: str
    files: ImageFolder
    checks: Sequence[ImageCheck]

    def findings(self, max_share: float) -> Iterator[Finding]:
        """Errors where too many images are faulty for a run to go on. max_share: `max_damaged_share`."""
        count, faulty = len(self.checks), sum(bool(check.fault) for check in self.checks)
        stops = faulty == count or too_many_damaged(faulty, count, count, max_share)
        severity = Severity.ERROR if stops else Severity.WARNING
        for fault, remedy in _FAULTS.items():
            messages = [check.message for check in self.checks if check.fault == fault]
            remedy = remedy.format(root=self.files.root)
            yield from found(severity, self.where, f"{{n}} images {fault}", messages, remedy)


def check_images(
    where: str,
    files: ImageFolder,
    names: Iterable[str],
    sizes: Iterable[Size],
    decode: bool = False,
) -> ImageReport:
    """Looks at every image once. sizes: (height, width) as stated, 0 if they are not."""
    stated = dict(zip(names, sizes, strict=True))
    work = partial(_check_each, files, decode)
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(desc=where, total=len(stated), unit="image", disable=None, leave=False) as bar,
    ):
        checks: list[ImageCheck] = []
        for part in _in_blocks(pool, work, stated.items()):
            checks += part
            bar.update(len(part))
    return ImageReport(where, files, checks)


def _in_blocks(
    pool: ThreadPoolExecutor, work: Callable[[Any], list[ImageCheck]], items: Iterable[Any]
) -> Iterator[list[ImageCheck]]:
    """`pool.map` by parts of some items, which would make a future for every part at once."""
    items = iter(items)
    while block := list(islice(items, _BLOCK)):
        yield from pool.map(work, [block[i : i + _AT_ONCE] for i in range(0, len(block), _AT_ONCE)])


def _check_each(files: ImageFolder, decode: bool, images: Sequence[tuple[str, Size]]) -> list[ImageCheck]:
    return [_check_image(files, decode, image) for image in images]


def _check_image(files: ImageFolder, decode: bool, image: tuple[str, Size]) -> ImageCheck:
    name, stated = image
    if refusal := files.refusal(name):
        return ImageCheck(name, _OUTSIDE, f"{name}: {refusal}")
    try:
        if (path := files.file_of(name)) is not None:
            digest, header = _inspected_file(path, decode)
        elif (hidden := files.find(name)) is None:
            return ImageCheck(name, _MISSING, name + files.nearest(name))
        else:
            data = hidden.read()
            digest, header = _inspected(partial(_part, data), len(data), decode)
        if header.mode.startswith(_DOUBTFUL) and (found := files.find(name)) is not None:
            EncodedImage(found.read(), name).decode()
    except (DamagedError, OSError) as error:
        return ImageCheck(name, _DAMAGED, f"{name}: {error}")
    except ImageError as error:
        return ImageCheck(name, _DAMAGED, str(error))
    view = header.view(stated, upright=files.upright)
    size, turned = view.size, HOW_READ[view.upright, view.told] if header.orientation != UPRIGHT else ""
    if all(stated) and size != stated:
        (h, w), (height, width) = size, stated
        return ImageCheck(name, _WRONG_SIZE, f"{name}: is {w}x{h}, stated as {width}x{height}", size, digest)
    return ImageCheck(name, "", "", size, digest, turned, header.mode)


def _part(data: bytes, offset: int, count: int) -> bytes:
    return data[offset : offset + count]


def _inspected_file(path: Path, decode: bool) -> tuple[bytes, Header]:
    with open_parts(path) as (read, length):
        return _inspected(read, length, decode)


def _inspected(read: Reader, length: int, decode: bool) -> tuple[bytes, Header]:
    """The digest and header of an image, of which no part is read twice."""
    digest = hashlib.blake2b(str(length).encode(), digest_size=16)

    def noted(offset: int, count: int) -> bytes:
        part = read(offset, count)
        if offset == 0 and not digested:
            digested.append(True)
            digest.update(part[:_DIGESTED])
        return part

    digested: list[bool] = []
    header = inspect(noted, length, decode)
    return digest.digest(), header
