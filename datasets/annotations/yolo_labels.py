"""The rows of a YOLO label file: boxes and outlines, as fractions of the image."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from util.errors import UserError
from util.text_files import read_lines

# How far tools round or draw past the edges, in images. Larger values are pixels, a track's id, or a flag.
_OVERHANG = 0.5
# Fewer rows of a box and points may just as well be outlines that look so by chance.
_FEWEST_POSES = 3
_BOX_ONLY = "write `class x y width height`"
_WHOLE = re.compile(r"[0-9]+")

Row = tuple[int, float, float, float, float]
"""(class number, centre x, centre y, width, height), all but the first in 0..1 of the image."""


class LabelReader:
    """Reads the label files of a split by one rule.

    A row is `class x y width height`, that and the keypoints that `kpt_shape` states (ignored), or an outline
    `class x1 y1 x2 y2 x3 y3 ...`, which becomes the box around it. Values stand apart by spaces, tabs
    or commas; `#` starts a comment. An outline has an area and lies in the image; what other programs write
    behind a box (a confidence, a track's id, keypoints that no `kpt_shape` states) is none, and a fault.
    """

    def __init__(self, names: Sequence[str], keypoints: int | None = None) -> None:
        """keypoints: values per box by `kpt_shape`, 0 where it says that there are none, None without it."""
        self._names = names
        self._keypoints = keypoints
        # Rows that cannot be a box and keypoints, rows that can; where the first one is, and its values.
        self._others = self._poses = 0
        self._first_pose = ("", 0)

    def read(self, path: Path) -> tuple[list[Row], list[str]]:
        """The boxes of a label file, and a message for every invalid line. Without a file there are none."""
        try:
            lines = read_lines(path) if path.exists() else []
        except UserError as error:
            return [], [str(error)]
        except (OSError, ValueError) as error:
            return [], [f"{path!s:.200}: cannot be read ({error})"]
        rows, faults = [], []
        for number, line in enumerate(lines, start=1):
            try:
                if words := _words(line):
                    rows.append(self._row(words))
                if self._poses == 1 and not self._first_pose[0]:
                    self._first_pose = (f"{path} line {number}", len(words) - 1)
            except ValueError as error:
                faults.append(f"{path} line {number}: {error}")
        return rows, faults

    def lines_of_rows(self, path: Path) -> list[int]:
        """The line number, from 1, of each of the rows that `read` returns of a file."""
        again = LabelReader(self._names, self._keypoints)
        numbers = []
        for number, line in enumerate(read_lines(path), start=1):
            with suppress(ValueError):
                if words := _words(line):
                    again._row(words)
                    numbers.append(number)
        return numbers

    def doubts(self) -> list[str]:
        """What only all of the rows together show: outlines that are all a box with points inside of it."""
        if self._keypoints is not None or self._others or self._poses < _FEWEST_POSES:
            return []
        place, values = self._first_pose
        points = (values - 4) // 2
        return [
            f"{place}: all {self._poses} rows may be a box and {points} keypoints in it; if they are, write "
            f"`kpt_shape: [{points}, 2]` into data.yaml, and if they are outlines, `kpt_shape: [0, 2]`"
        ]

    def _row(self, words: list[str]) -> Row:
        """Raises ValueError saying what is wrong."""
        label = self._label(words[0])
        if self._keypoints:
            if len(words) not in (5, 5 + self._keypoints):
                expected = f"{5 + self._keypoints} (a box and its keypoints, by kpt_shape)"
                raise ValueError(f"{len(words)} values, not {expected}")
            words = words[:5]
        try:
            values = [float(word) for word in words[1:]]
        except ValueError:
            raise ValueError(f"{' '.join(words)[:60]!r} contains a value that is not a number") from None
        if len(values) == 4:
            self._others += 1
            return label, *_checked_box(words, values)
        if what := _behind_a_box(words, values):
            raise ValueError(what)
        box = _box_around(words, values)
        if self._first_pose[1] in (0, len(values)) and _may_be_pose(values):
            self._poses += 1
        else:
            self._others += 1
        return label, *box

    def _label(self, word: str) -> int:
        if word in self._names and not _WHOLE.fullmatch(word):
            number = self._names.index(word)
            raise ValueError(f"class {word!r:.60} by name; write its number, {number}")
        try:
            label = float(word.replace("_", "x"))  # Python takes `1_0` for ten
        except ValueError:
            raise ValueError(f"class {word!r:.60} is not a number") from None
        if not label.is_integer() or not 0 <= label < len(self._names):
            count = len(self._names)
            raise ValueError(f"class {word:.60}, but there are {count} classes (0..{count - 1})")
        return int(label)


def _words(line: str) -> list[str]:
    """The values of a line without its comment. Raises ValueError for commas that are not between values."""
    line = line.partition("#")[0].strip()
    if "," not in line:
        return line.split()
    words = [word.strip() for word in line.removesuffix(",").split(",")]
    if any(not word or len(word.split()) > 1 for word in words):
        raise ValueError(
            f"{line[:60]!r} has commas and spaces between values; decimals are written with a point"
        )
    return words


def _checked_box(words: Sequence[str], values: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = values
    inside = all(-_OVERHANG <= v <= 1 + _OVERHANG for v in (x, y)) and max(width, height) <= 1 + 2 * _OVERHANG
    if not inside or not all(map(math.isfinite, values)):
        raise ValueError(f"{' '.join(words[1:])[:60]} are not fractions of the image, 0..1; are they pixels?")
    if min(width, height) < 0:
        raise ValueError(f"{' '.join(words[1:])[:60]}: a width or height below 0")
    return x, y, width, height


def _behind_a_box(words: Sequence[str], values: Sequence[float]) -> str:
    """What is wrong with a row that is no box and can be no outline, and the fix; '' where it may be one."""
    more = len(values) - 4
    if more < 1:
        return f"{len(words)} values, not 5 ({_BOX_ONLY[6:]}) or an outline of 3 points and more"
    boxed = all(map(math.isfinite, values)) and _is_in_image(values)
    if more == 1:
        rest = "a confidence or a track's id" if boxed else "something more"
        return f"6 values, a box and {rest}; are these predictions? {_BOX_ONLY}"
    # A row of a tracker. Its id has no point; a triangle's last value has one, but for one at the very edge.
    if more == 2 and boxed and 0 <= values[4] <= 1 and _WHOLE.fullmatch(words[-1]):
        triangle = f" (if it is a triangle, write its last value as {words[-1]}.0)" if values[5] <= 1 else ""
        return f"7 values, a box, a confidence and a track's id; {_BOX_ONLY}{triangle}"
    points = more // 3
    flags = words[7::3]
    if more % 3 == 0 and boxed and all(flag in ("0", "1", "2", "0.0", "1.0", "2.0") for flag in flags):
        corners = list(zip(values[4::3], values[5::3], flags, strict=True))
        if all(float(flag) == 0 or _is_in_box(x, y, values) for x, y, flag in corners):
            return (
                f"{len(words)} values, a box and {points} keypoints of x, y and a flag; write `kpt_shape: "
                f"[{points}, 3]` into data.yaml"
            )
    if more % 2:
        return f"{len(words)} values, not 5 ({_BOX_ONLY[6:]}) or an outline, x and y of 3 points and more"
    return ""


def _box_around(words: Sequence[str], values: Sequence[float]) -> tuple[float, float, float, float]:
    """The box around an outline. Raises ValueError for what is none."""
    if not all(-_OVERHANG <= v <= 1 + _OVERHANG for v in values):
        raise ValueError(f"{' '.join(words[1:])[:60]} are not fractions of the image, 0..1; are they pixels?")
    xs, ys = values[0::2], values[1::2]
    left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    width, height = right - left, bottom - top
    # A point, or a line along an axis, is a box without size, which is left out and counted like all such.
    if width and height and _lie_on_a_line(xs, ys):
        raise ValueError(f"{' '.join(words[1:])[:60]}: no outline, its points lie on a line")
    return (left + right) / 2, (top + bottom) / 2, width, height


def _lie_on_a_line(xs: Sequence[float], ys: Sequence[float]) -> bool:
    dx, dy = next((x - xs[0], y - ys[0]) for x, y in zip(xs, ys, strict=True) if (x, y) != (xs[0], ys[0]))
    return all(abs((x - xs[0]) * dy - (y - ys[0]) * dx) < 1e-12 for x, y in zip(xs, ys, strict=True))


def _may_be_pose(values: Sequence[float]) -> bool:
    """Whether an outline may as well be a box and keypoints in it. A rotated rectangle is no such."""
    if not _is_in_image(values):
        return False
    points = zip(values[4::2], values[5::2], strict=True)
    if not all(point == (0, 0) or _is_in_box(*point, values) for point in points):
        return False
    if len(values) != 8:
        return True
    x, y, further_x, further_y = (values[i] + values[i + 4] for i in range(4))
    return abs(x - further_x) > 0.01 or abs(y - further_y) > 0.01


def _is_in_image(box: Sequence[float]) -> bool:
    """Whether the first four values, centre and size, are a box inside of the image."""
    x, y, width, height = box[:4]
    edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return min(width, height) > 0 and all(-0.01 <= edge <= 1.01 for edge in edges)


def _is_in_box(x: float, y: float, box: Sequence[float]) -> bool:
    return abs(x - box[0]) <= box[2] / 2 + 0.01 and abs(y - box[1]) <= box[3] / 2 + 0.01


def in_pixels(box: Sequence[float], height: int, width: int) -> tuple[float, ...]:
    """CXCYWH in 0..1 -> XYWH in pixels."""
    x, y, w, h = box
    return (x - w / 2) * width, (y - h / 2) * height, w * width, h * height
