"""What a YOLO data.yaml says: class names, keypoints, and the paths of its splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from datasets.annotations.json_errors import TOO_DEEP, is_class_name
from util.errors import UserError
from util.text_files import read_lines, read_text

NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "train/classes.txt", "train/_darknet.labels")
_LIST_OF_NAMES = "write a list, `names: [cat, dog]`, or numbers with names, `names: {0: cat, 1: dog}`"
_NUMBER = re.compile("[0-9]{1,9}")
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_TAG + kind for kind in ("str", "int", "float", "bool", "timestamp", "value", "merge")}


class _Loader(yaml.SafeLoader):
    """YAML without aliases (a few lines of them stand for more than any memory holds), every value a text.

    YAML takes `no` for false, `012` for ten and `2024-01-01` for a date; a class or folder may be called so.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not read", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = True) -> Any:
        """The words of a value as they are written, None for null, and lists and dicts of these."""
        if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null":
            return None
        if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN_TAGS:
            return node.value
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.construct_object(child) for child in node.value]
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            pairs = [(self.construct_object(key), self.construct_object(value)) for key, value in node.value]
            return self._without_repeats(pairs, node)
        raise yaml.constructor.ConstructorError(
            None, None, f"a value of the kind {node.tag!r:.60} is not read", node.start_mark
        )

    def _without_repeats(self, pairs: list[tuple[Any, Any]], node: yaml.MappingNode) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if not isinstance(key, str) or key in content:
                problem = "occurs twice" if isinstance(key, str) else "is no key"
                raise yaml.constructor.ConstructorError(None, None, f"{key!r:.60} {problem}", node.start_mark)
            content[key] = value
        return content


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a YAML file. Every value is the text that is written there, None for null, or a list or
    dict of these. Empty where the file holds no keys. Raises UserError."""
    text = read_text(path)
    try:
        content = yaml.load(text, _Loader)
    except RecursionError:
        raise UserError(f"{path}: {TOO_DEEP}") from None
    except Exception as error:  # PyYAML raises anything for values of a wrong form
        raise UserError(f"{path}: is not valid YAML ({' '.join(str(error).split())[:200]})") from None
    return content if isinstance(content, dict) else {}


def class_names(content: dict[str, Any], source: Path) -> tuple[str, ...]:
    """Names by class number, without the spaces around them.

    content: of data.yaml, whose `names` is a list, a dict of numbers and names, or a text file with a name a
    line; without it, or without the YAML, that file is classes.txt or obj.names.  source: the YAML file, or
    the folder.
    Raises UserError for any other form, a name that is empty or null, and an `nc` that is another number.
    """
    names = content.get("names")
    if names is None or isinstance(names, str):
        names = _names_in_file(names, source)
    elif isinstance(names, dict):
        names = _in_order(names, source)
    if not names:
        raise UserError(f"{source}: `names` is empty; {_LIST_OF_NAMES}")
    for number, name in enumerate(names):
        if name is None:
            raise UserError(
                f"{source}: the name of class {number} in `names` is null; if it is called so, write 'null'"
            )
        if not is_class_name(name):
            raise UserError(
                f"{source}: the name of class {number} in `names`, {name!r:.60}, is no line of text"
            )
    count = content.get("nc")
    if count is not None and (not _is_number(count) or int(count) != len(names)):
        raise UserError(
            f"{source}: nc is {count!r:.60}, but `names` has {len(names)} classes; nc may be left out"
        )
    return tuple(name.strip() for name in names)


def _names_in_file(stated: str | None, source: Path) -> list[str]:
    """stated: the file's name by `names`, if there is one."""
    folder = source.parent if source.is_file() else source
    places = [folder / name for name in ((stated.strip(),) if stated is not None else NAME_FILES)]
    try:
        found = [place for place in places if place.is_file()]
    except (OSError, ValueError):  # a name that can be no path
        found = []
    if found:
        lines = [line.strip() for line in read_lines(found[0])]
        while lines and not lines[-1]:
            lines.pop()
        if wrong := next((i for i, line in enumerate(lines, 1) if line and not is_class_name(line)), 0):
            raise UserError(f"{found[0]}: line {wrong}, {lines[wrong - 1]!r:.60}, is no line of text")
        if "" in lines:
            raise UserError(
                f"{found[0]}: line {lines.index('') + 1} is empty; it stands for class {lines.index('')}, "
                "and a name a line is needed"
            )
        if not lines:
            raise UserError(f"{found[0]}: is empty; write one class name a line")
        return lines
    if stated is None:
        raise UserError(
            f"{source}: no class names; write them into data.yaml (`names:`) or classes.txt, one per line"
        )
    raise UserError(
        f"{source}: `names` is {stated!r:.60}, neither a list of class names nor a file in {folder}; "
        f"{_LIST_OF_NAMES}"
    )


def _in_order(names: dict[str, Any], source: Path) -> list[Any]:
    numbers = [int(key) if _is_number(key) else -1 for key in names]
    if sorted(numbers) != list(range(len(names))):
        wrong = next((k for k, n in zip(names, numbers, strict=True) if not 0 <= n < len(names)), "")
        raise UserError(
            f"{source}: the numbers of `names` are not 0..{len(names) - 1}, each once"
            + (f": {wrong!r:.60}" if wrong else "")
        )
    by_number = dict(zip(numbers, names.values(), strict=True))
    return [by_number[number] for number in range(len(names))]


def split_paths(content: dict[str, Any], names: Sequence[str], source: Path) -> list[str]:
    """The folders and lists of images of a split: of the first of the keys `names` that says any.

    Raises UserError for a value that is no path and no list of paths.
    """
    for name in names:
        value = content.get(name)
        paths = value if isinstance(value, list) else [] if value in (None, "") else [value]
        for path in paths:
            if not isinstance(path, str) or not path:
                raise UserError(f"{source}: its `{name}` is {value!r:.60}, not a path or a list of paths")
        if paths:
            return paths
    return []


def dataset_folder(content: dict[str, Any], source: Path) -> str:
    """`path`, '' where it is not stated. Raises UserError for what is no path."""
    path = content.get("path")
    if path is not None and not isinstance(path, str):
        raise UserError(f"{source}: its `path` is {path!r:.60}, not a path")
    return path or ""


def keypoint_values(content: dict[str, Any], source: Path) -> int | None:
    """Keypoint values per box, by `kpt_shape`: [points, values per point]. None where it is not stated."""
    shape = content.get("kpt_shape")
    if shape is None:
        return None
    if not (isinstance(shape, list) and len(shape) == 2 and all(map(_is_number, shape))):
        raise UserError(f"{source}: kpt_shape {shape!r:.60} is not [points, values per point]")
    return int(shape[0]) * int(shape[1])


def _is_number(text: Any) -> bool:
    """Whether it is written as a whole number, not below 0."""
    return isinstance(text, str) and _NUMBER.fullmatch(text) is not None
