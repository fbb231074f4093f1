"""Checks of what images are like: turned, in other modes than RGB, long, small."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from datasets.images.turned import HOW_READ, REMEDY, UNTOLD
from tools.data_doctor.findings import Finding, Severity, found
from tools.data_doctor.images import ImageCheck

NOTE, WARNING, ERROR = Severity
# An image this many times as long as wide becomes a line; cells of the largest stride have 64 pixels a side.
_LONGEST, _SMALLEST = 20, 32
_MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "P": "colours of a palette",
    "RGBA": "colour with transparency",
    "CMYK": "colours of printing",
}


def check_pixels(where: str, checks: Sequence[ImageCheck]) -> Iterator[Finding]:
    """Of the images that can be read."""
    whole = [check for check in checks if not check.fault]
    for how in dict.fromkeys(HOW_READ.values()):
        yield from found(
            WARNING if how == UNTOLD else NOTE, where, f"{{n}} images have an EXIF orientation and {how}",
            [check.name for check in whole if check.turned == how], REMEDY if how == UNTOLD else "",
        )  # fmt: skip
    yield from _modes(where, whole)
    shapes = [(max(c.size) / max(min(c.size), 1), min(c.size), c) for c in whole if all(c.size)]
    long = sorted(((aspect, c) for aspect, _, c in shapes if aspect > _LONGEST), key=lambda s: -s[0])
    yield from found(WARNING, where, f"{{n}} images are more than {_LONGEST} times as long as wide",
                     [_sized(c) for _, c in long], "a resize makes lines of them: cut them up")  # fmt: skip
    small = sorted(((side, c) for _, side, c in shapes if side < _SMALLEST), key=lambda s: s[0])
    yield from found(NOTE, where, f"{{n}} images have a side of less than {_SMALLEST} pixels",
                     [_sized(c) for _, c in small], "")  # fmt: skip


def _modes(where: str, checks: Sequence[ImageCheck]) -> Iterator[Finding]:
    """All modes but RGB in one finding, the most frequent first."""
    names = defaultdict(list)
    for check in checks:
        if check.mode not in ("", "RGB"):
            names[check.mode].append(check.name)
    modes = sorted(names, key=lambda mode: -len(names[mode]))
    examples = [f"{_mode(mode)}: {len(names[mode]):,}, such as {names[mode][0]}" for mode in modes]
    count = sum(map(len, names.values()))
    if count:
        what = "{n} images are converted to 8-bit RGB (docs/data.md)"
        yield Finding(NOTE, where, what.format(n=f"{count:,}"), "", examples, what, count)


def _mode(mode: str) -> str:
    if mode.startswith("I"):
        return f"grey of 16 bits ({mode})"
    return f"{_MODES[mode]} ({mode})" if mode in _MODES else mode


def _sized(check: ImageCheck) -> str:
    height, width = check.size
    return f"{check.name}: {width}x{height}"
