"""What a YOLO data.yaml says: class names, keypoints, and the paths of its splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from datasets.annotations.json_errors import TOO_DEEP, is_text
from util.errors import UserError

# Bytes of a text file: class names, boxes or paths.
_MOST_TEXT = 2**26
_NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt")


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a few lines of them stand for more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not read", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> dict[str, Any]:
    text = read_text(path)
    try:
        content = yaml.load(text, _Loader)
    except RecursionError:
        raise UserError(f"{path}: {TOO_DEEP}") from None
    except Exception as error:  # values of a wrong form make the constructors raise anything
        raise UserError(f"{path}: is not valid YAML ({' '.join(str(error).split())[:200]})") from None
    return content if isinstance(content, dict) else {}


def read_text(path: Path) -> str:
    """Of a text file. Raises UserError."""
    try:
        if path.stat().st_size > _MOST_TEXT:
            raise UserError(f"{path}: has more than {_MOST_TEXT >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not a text file ({error.reason})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def class_names(content: dict[str, Any], source: Path) -> tuple[str, ...]:
    """Names by class number."""
    names = content.get("names")
    if names is None:
        files = [source / name for name in _NAME_FILES if (source / name).is_file()]
        if not files:
            raise UserError(
                f"{source}: no class names; write them into data.yaml (`names:`) or classes.txt, one per line"
            )
        names = [line.strip() for line in read_text(files[0]).splitlines() if line.strip()]
    if isinstance(names, dict):
        if not all(type(key) is int for key in names) or sorted(names) != list(range(len(names))):
            raise UserError(f"{source}: the numbers of `names` are not 0..{len(names) - 1}, each once")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list):
        raise UserError(f"{source}: `names` is {names!r:.60}, not a list of class names")
    if not names:
        raise UserError(f"{source}: `names` is empty")
    if wrong := [name for name in names if not is_text(name)]:
        raise UserError(f"{source}: the class name {wrong[0]!r:.60} is not a string; put it in quotes")
    if content.get("nc", len(names)) != len(names):
        raise UserError(f"{source}: nc is {content['nc']!r:.60}, but `names` has {len(names)} classes")
    return tuple(names)


def keypoint_values(content: dict[str, Any], source: Path) -> int:
    """Keypoint values per box, by `kpt_shape`: [points, values per point]. 0 without keypoints."""
    shape = content.get("kpt_shape", [0, 2])
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n >= 0 for n in shape)):
        raise UserError(f"{source}: kpt_shape {shape!r:.60} is not [points, values per point]")
    return shape[0] * shape[1]
