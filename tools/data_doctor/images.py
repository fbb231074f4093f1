"""Checks of the image files: there, whole, of the size that is said, not in two parts of the data."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from tqdm import tqdm

from datasets.images.header import DamagedError, inspect, inspect_file
from datasets.images.reader import ImageFolder
from tools.data_doctor.findings import Finding, Severity, found

# Waiting for the disk, and Pillow's decoding, leave the interpreter to others.
_THREADS = 2 * (os.cpu_count() or 1)
_BLOCK = 10_000


class ImageCheck(NamedTuple):
    """What a look at one image showed.

    missing, damaged, wrong_size: '' or a message.  length: bytes of the file, 0 where it was not read.
    """

    name: str
    length: int = 0
    missing: str = ""
    damaged: str = ""
    wrong_size: str = ""


@dataclass(frozen=True)
class ImageReport:
    """All images of a part of the data. where: its name."""

    where: str
    files: ImageFolder
    looks: Sequence[ImageCheck]

    def findings(self, severity: Severity) -> Iterator[Finding]:
        """severity: of an image that cannot be used in this part."""
        missing, damaged, sizes = (
            [message for look in self.looks if (message := getattr(look, kind))]
            for kind in ("missing", "damaged", "wrong_size")
        )
        yield from found(severity, self.where, "{n} images are missing", missing,
                         f"copy them below {self.files.root}, or take them off the list")  # fmt: skip
        yield from found(severity, self.where, "{n} images are damaged", damaged,
                         "copy them again from where they came")  # fmt: skip
        yield from found(severity, self.where, "{n} images are of another size than is said", sizes,
                         "the boxes do not fit them: use the original images, or correct width and height "
                         "(swapped: an EXIF turn was applied when they were annotated)")  # fmt: skip


def check_images(
    where: str,
    files: ImageFolder,
    names: Iterable[str],
    sizes: Iterable[tuple[int, int]],
    decode: bool = False,
) -> ImageReport:
    """Looks at every image once. sizes: (height, width) that are said, 0 where they are not."""
    said = dict(zip(names, sizes, strict=True))
    look = partial(_look, files, decode)
    with ThreadPoolExecutor(_THREADS) as pool:
        looks = _in_blocks(pool, look, said.items())
        return ImageReport(
            where, files, list(tqdm(looks, where, len(said), unit="image", disable=None, leave=False))
        )


def _in_blocks(
    pool: ThreadPoolExecutor, work: Callable[[Any], ImageCheck], items: Iterable[Any]
) -> Iterator[ImageCheck]:
    """`pool.map`, which would make a future for every item at once."""
    items = iter(items)
    while block := list(islice(items, _BLOCK)):
        yield from pool.map(work, block)


def in_both(a: ImageReport, b: ImageReport) -> list[str]:
    """Images of `a` whose bytes are also in `b`. Only those of equal length are read."""
    lengths = {look.length for look in a.looks} & {look.length for look in b.looks} - {0}
    known = {digest: name for name, digest in _digests(b, lengths)}
    return [f"{name} is {known[digest]}" for name, digest in _digests(a, lengths) if digest in known]


def check_both(train: ImageReport, val: ImageReport) -> Iterator[Finding]:
    """Images that are trained on and evaluated on."""
    yield from found(
        Severity.ERROR,
        f"{train.where}, {val.where}",
        "{n} images are in both, so the metrics say nothing about new images",
        in_both(train, val),
        f"take them out of {train.where}",
    )


def _look(files: ImageFolder, decode: bool, image: tuple[str, tuple[int, int]]) -> ImageCheck:
    name, said = image
    path = files.root / name
    try:
        if path.is_file():
            length, size = path.stat().st_size, inspect_file(path, decode)
        elif (hidden := files.find(name)) is None:
            return ImageCheck(name, missing=name + files.nearest(name))
        else:
            data = hidden.read()
            length, size = len(data), inspect(_parts_of(data), len(data), decode)
    except (DamagedError, OSError) as error:
        return ImageCheck(name, damaged=f"{name}: {error}")
    if all(said) and size != said:
        (h, w), (height, width) = size, said
        return ImageCheck(name, length, wrong_size=f"{name}: is {w}x{h}, said to be {width}x{height}")
    return ImageCheck(name, length)


def _parts_of(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, count: data[offset : offset + count]


def _digests(looked: ImageReport, lengths: set[int]) -> Iterator[tuple[str, bytes]]:
    """(name, digest of the content) of the images of certain lengths."""
    for look in looked.looks:
        if look.length in lengths:
            content = looked.files.find(look.name)
            if content is not None:
                yield look.name, hashlib.blake2b(content.read(), digest_size=16).digest()
