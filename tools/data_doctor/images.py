"""Checks of the image files: present, whole, of the stated size, not in two parts of the data."""

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
from datasets.images.reader import ImageFolder, too_many_damaged
from tools.data_doctor.findings import Finding, Severity, found

# Waiting for the disk and Pillow's decoding both release the GIL.
_THREADS = 2 * (os.cpu_count() or 1)
_BLOCK = 10_000
_MISSING, _DAMAGED, _WRONG_SIZE = "are missing", "are damaged", "differ from their stated size"
_OUTSIDE = "lie outside of the data folder"
# What is wrong with images -> the fix.
_FAULTS = {
    _MISSING: "copy them to {root}, or remove them from the annotations",
    _DAMAGED: "copy them again from the source",
    _OUTSIDE: "put them into it, or a link to their whole folder (docs/data.md, names and links)",
    _WRONG_SIZE: "the boxes do not fit them: use the original images, or correct width and height "
    "(if swapped: an EXIF rotation was applied when they were annotated)",
}


class ImageCheck(NamedTuple):
    """The result for one image.

    length: bytes of the file, 0 if it was not read.  fault: '' or a key of _FAULTS.  message: says more.
    """

    name: str
    length: int = 0
    fault: str = ""
    message: str = ""


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
    sizes: Iterable[tuple[int, int]],
    decode: bool = False,
) -> ImageReport:
    """Looks at every image once. sizes: (height, width) as stated, 0 if they are not."""
    stated = dict(zip(names, sizes, strict=True))
    check = partial(_check_image, files, decode)
    with ThreadPoolExecutor(_THREADS) as pool:
        checks = _in_blocks(pool, check, stated.items())
        return ImageReport(
            where, files, list(tqdm(checks, where, len(stated), unit="image", disable=None, leave=False))
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
    lengths = {check.length for check in a.checks} & {check.length for check in b.checks} - {0}
    known = {digest: name for name, digest in _digests(b, lengths)}
    return [f"{name} is {known[digest]}" for name, digest in _digests(a, lengths) if digest in known]


def check_both(train: ImageReport, val: ImageReport) -> Iterator[Finding]:
    """Images that are trained on and evaluated on."""
    yield from found(
        Severity.ERROR,
        f"{train.where}, {val.where}",
        "{n} images are in both, so the metrics say nothing about new images",
        in_both(train, val),
        f"remove them from {train.where}",
    )


def _check_image(files: ImageFolder, decode: bool, image: tuple[str, tuple[int, int]]) -> ImageCheck:
    name, stated = image
    path = files.root / name
    if refusal := files.refusal(name):
        return ImageCheck(name, fault=_OUTSIDE, message=f"{name}: {refusal}")
    try:
        if path.is_file():
            length, size = path.stat().st_size, inspect_file(path, decode)
        elif (hidden := files.find(name)) is None:
            return ImageCheck(name, fault=_MISSING, message=name + files.nearest(name))
        else:
            data = hidden.read()
            length, size = len(data), inspect(_parts_of(data), len(data), decode)
    except (DamagedError, OSError) as error:
        return ImageCheck(name, fault=_DAMAGED, message=f"{name}: {error}")
    if all(stated) and size != stated:
        (h, w), (height, width) = size, stated
        return ImageCheck(name, length, _WRONG_SIZE, f"{name}: is {w}x{h}, stated as {width}x{height}")
    return ImageCheck(name, length)


def _parts_of(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, count: data[offset : offset + count]


def _digests(report: ImageReport, lengths: set[int]) -> Iterator[tuple[str, bytes]]:
    """(name, digest of the content) of the images of certain lengths."""
    for check in report.checks:
        if check.length in lengths:
            content = report.files.find(check.name)
            if content is not None:
                yield check.name, hashlib.blake2b(content.read(), digest_size=16).digest()
