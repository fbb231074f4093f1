"""Damaged inputs, the same for a seed: of the bytes, of the words of a text, of the values of a JSON file."""

import copy
import json
import random
import re
from typing import Any

# JSON values that do not belong there.
_ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, float("inf"), float("nan"), 1e308),
    *("", "x" * 3000, "a\0b", "\ud800", "../../x", "a\nb", "1", [], {}, [None], [[]], {"id": None}, {"": 0}),
)
# Words of a text that do not belong there.
_ODD_WORDS = (
    *(
        "",
        "-1",
        "0",
        "1e999",
        "nan",
        "inf",
        "9" * 30,
        "9" * 5000,
        "x" * 3000,
        "\0",
        "\\",
        "'",
        "[" * 200,
        "{",
    ),
    *(
        "..",
        "/",
        "~",
        "*",
        ",",
        ":",
        "=",
        "@",
        "None",
        "true",
        "\u202e",
        "&a",
        "*a",
        "!!x",
        "- ",
        "\t",
        "0x1F",
    ),
)
_WORD = re.compile(r"[\w.+-]+")


def mutate(whole: bytes, rng: random.Random) -> bytes:
    """One damaged copy. What is JSON or another text is damaged as such half of the time."""
    if rng.random() < 0.5:
        try:
            return _changed_json(json.loads(whole), rng)
        except ValueError:
            pass
        try:
            return _changed_text(whole.decode(), rng)
        except UnicodeDecodeError:
            pass
    return _changed_bytes(whole, rng)


def _changed_bytes(whole: bytes, rng: random.Random) -> bytes:
    content = bytearray(whole)
    at = rng.randrange(len(content) + 1)
    size = rng.choice((1, 2, 7, 64, 1000))
    kind = rng.randrange(7)
    if kind < 2:
        for _ in range(rng.choice((1, 1, 1, 5, 50))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del content[at:]
    elif kind == 3:
        del content[at : at + size]
    elif kind == 4:
        content[at : at + size] = bytes(size)
    elif kind == 5:
        content[at:at] = rng.randbytes(size)
    else:
        content[at:at] = content[max(0, at - size) : at]
    return bytes(content)


def _changed_text(text: str, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        lines = text.splitlines(keepends=True)
        rng.shuffle(lines)
        text = "".join(lines[: rng.randrange(len(lines) + 1)])
    for _ in range(rng.choice((1, 1, 2, 4))):
        words = list(_WORD.finditer(text))
        if words:
            found = rng.choice(words)
            text = text[: found.start()] + rng.choice(_ODD_WORDS) + text[found.end() :]
    return text.encode("utf-8", "surrogatepass")


def _changed_json(value: Any, rng: random.Random) -> bytes:
    holder = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 1, 3))):
        places = [(holder, 0)]
        for container, key in places:
            inner = container[key]
            if isinstance(inner, dict):
                places += [(inner, name) for name in inner]
            elif isinstance(inner, list):
                places += [(inner, i) for i in range(len(inner))]
        container, key = rng.choice(places)
        if rng.random() < 0.2 and container is not holder:
            del container[key]
        elif rng.random() < 0.1:
            for _ in range(rng.choice((20, 3000))):
                container[key] = [container[key]]
        else:
            # A copy: put into itself later, a value of the list would have no end.
            container[key] = copy.deepcopy(rng.choice(_ODD))
    return _dumped(holder[0])


def _dumped(value: Any) -> bytes:
    """As json.dumps, at any depth: strings are joined from the outside in."""
    parts: list[str] = []
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, _Text):
            parts.append(item)
        elif isinstance(item, dict):
            pieces: list[Any] = []
            for name, inner in item.items():
                pieces += [_Text(", " if pieces else ""), _Text(f"{json.dumps(name)}: "), inner]
            pending += [_Text("}"), *reversed(pieces), _Text("{")]
        elif isinstance(item, list):
            pieces = []
            for inner in item:
                pieces += [_Text(", " if pieces else ""), inner]
            pending += [_Text("]"), *reversed(pieces), _Text("[")]
        else:
            parts.append(json.dumps(item))
    return "".join(parts).encode()


class _Text(str):
    """A part of the output, not a value."""
