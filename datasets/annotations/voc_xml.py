"""One XML file of Pascal VOC: the objects of one image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from datasets.annotations.json_errors import is_class_name
from util.errors import UserError

# Bytes of a file, which has a few hundred for each object.
_LARGEST = 2**26
_FLAGS = {"0": False, "1": True, "false": False, "true": True, "": False}
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LINE = "line"


class VocObject(NamedTuple):
    """box_xywh: pixels.  line: of its `<object>`, from 1 on."""

    name: str
    box_xywh: tuple[float, float, float, float]
    difficult: bool
    line: int


class VocImage(NamedTuple):
    """filename: as it is stated, or ''.  size: (height, width), 0 where it is not stated.
    faults: a message for each object that breaks the rules; these are not in `objects`."""

    filename: str
    size: tuple[int, int]
    objects: list[VocObject]
    faults: list[str]


def read_voc(path: Path) -> VocImage:
    """The image and objects of a file. Raises UserError where it is no such file.

    The boxes of VOC's own files count pixels from 1, both ends included; (1, 1, width, height) is the whole
    image. Those of tools that name themselves, or nothing, as their `source` are corners, from 0 on.
    """
    root = _parse(path)
    if root.tag != "annotation":
        raise UserError(f"{path}: is no VOC annotation: it begins with <{root.tag:.40}>, not <annotation>")
    database = root.find("source/database")
    from_one = database is None or "VOC" in (database.text or "").upper()
    objects, faults = [], []
    for thing in root.findall("object"):
        try:
            objects.append(_object(thing, from_one))
        except ValueError as error:
            faults.append(f"{path} line {thing.get(_LINE)}: {error}")
    size = [0, 0]
    for place, side in enumerate(("height", "width")):
        try:
            size[place] = _length(side, root.findtext(f"size/{side}"))
        except ValueError as error:
            faults.append(f"{path}: {error}")
    filename = (root.findtext("filename") or "").strip()
    return VocImage(filename, (size[0], size[1]), objects, faults)


def _parse(path: Path) -> Element:
    """The tree of a file, whose elements have their line in place of attributes."""
    parser, builder = expat.ParserCreate(), TreeBuilder()

    def refuse(*_: object) -> None:
        raise UserError(f"{path}: has a DOCTYPE, which is not read: entities in it may stand for anything")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda tag, _: builder.start(tag, {_LINE: str(parser.CurrentLineNumber)})
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise UserError(f"{path}: has more than {_LARGEST >> 20} MiB")
        parser.Parse(data, True)
    except expat.ExpatError as error:
        what = expat.errors.messages[error.code]
        raise UserError(f"{path} line {error.lineno}: is not valid XML ({what})") from None
    except (LookupError, ValueError) as error:  # an encoding that Python does not know
        raise UserError(f"{path}: cannot be read ({str(error)[:100]})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return builder.close()


def _object(thing: Element, from_one: bool) -> VocObject:
    """Raises ValueError saying what is wrong."""
    name = (thing.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object without a `name`")
    if not is_class_name(name):
        raise ValueError(f"the `name` of an object, {name!r:.60}, is no line of text")
    box = thing.find("bndbox")
    if box is None:
        other = " (it has a rotated one, `robndbox`)" if thing.find("robndbox") is not None else ""
        raise ValueError(f"the object {name!r:.60} has no `bndbox`{other}")
    corners = []
    for key in _CORNERS:
        text = box.findtext(key)
        if text is None or not _NUMBER.fullmatch(text):
            raise ValueError(f"the `{key}` of the object {name!r:.60} is {text!r:.40}, not a number")
        corners.append(float(text))
    left, top, right, bottom = corners
    if from_one:
        left, top = left - 1, top - 1
    flag = (thing.findtext("difficult") or "").strip()
    if flag.lower() not in _FLAGS:
        raise ValueError(f"the `difficult` of the object {name!r:.60} is {flag!r:.40}, not 0 or 1")
    line = int(thing.get(_LINE, "0"))
    return VocObject(name, (left, top, right - left, bottom - top), _FLAGS[flag.lower()], line)


def _length(side: str, text: str | None) -> int:
    """Of a side; 0 where it is not stated. Raises ValueError for what is no number of pixels."""
    if text is None or not text.strip():
        return 0
    value = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not 0 <= value < 2**31 or not value.is_integer():
        raise ValueError(f"its `{side}` is {text.strip()!r:.40}, not a number of pixels")
    return int(value)
