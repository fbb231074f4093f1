"""Damaged checkpoints by the hundred, the same for a seed: of structure, of the pickle, of the file."""

import copy
import io
import math
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

Content = dict[str, Any]

# The pickle of torch's zip; the other records are bytes of tensors.
_PICKLE = "/data.pkl"


def mutations(content: Content, path: Path, count: int, seed: int) -> Iterator[str]:
    """Writes one damaged file after the other to `path`, and says what was done to it."""
    rng = random.Random(seed)
    torch.save(content, path)
    whole = path.read_bytes()
    for index in range(count):
        kind = ("structure", "structure", "pickle", "file")[index % 4]
        if kind == "structure":
            changed, what = copy.deepcopy(content), ""
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                what += _change_structure(changed, rng)
            torch.save(changed, path)
        elif kind == "pickle":
            path.write_bytes(_with_pickle(whole, rng))
            what = f"pickle {index}"
        else:
            path.write_bytes(_with_damage(whole, rng))
            what = f"file {index}"
        yield f"{kind}: {what}"


def _values(rng: random.Random) -> Any:
    """Something that does not belong there."""
    numbers = (0, 1, -1, 3, 10**9, -(10**9), 2**63, 10**40, 0.5, math.nan, math.inf, -math.inf, 1e308)
    texts = ("", "x", "r", "../..", "a\nb", "a\0b", "\ud800", "x" * 5000, "1", "hf://a/b")
    tensors = (
        torch.zeros(()),
        torch.zeros(0),
        torch.ones(3, 4),
        torch.full((2,), math.nan),
        torch.ones(2, dtype=torch.int64),
        torch.ones(1).expand(10**5, 10**5),
        torch.ones(2, dtype=torch.complex64),
        torch.eye(3).to_sparse(),
        torch.ones(2, dtype=torch.bool),
    )
    others = (
        None,
        True,
        False,
        [],
        {},
        (),
        [[]],
        {"x": 1},
        [None],
        b"x",
        {1: 2},
        {"": {}},
        [1] * 700,
        {1, 2},
    )
    return rng.choice(
        (*numbers, *texts, *tensors, *others, nested(rng.choice((25, 150))), doubled(rng.choice((4, 30))))
    )


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def doubled(times: int) -> list:
    """A list of 2 to the power of `times` values that takes no memory."""
    value: list = [1]
    for _ in range(times):
        value = [value, value]
    return value


def _places(value: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """Every container in it with every key."""
    if depth > 4 or not isinstance(value, (dict, list)):
        return []
    keys = list(value) if isinstance(value, dict) else range(len(value))
    return [(value, k) for k in keys] + [p for k in keys for p in _places(value[k], depth + 1)]


def _change_structure(content: Content, rng: random.Random) -> str:
    """Changes one value somewhere; entries near the top as often as the many below."""
    container, key = rng.choice(_places(content) if rng.random() < 0.5 else [(content, k) for k in content])
    if rng.random() < 0.3 and isinstance(container[key], (dict, list)) and container[key]:
        below = container[key]
        container, key = below, rng.choice(list(below) if isinstance(below, dict) else range(len(below)))
    old = container[key]
    deed = rng.choice(("replace", "replace", "delete", "rename", "tensor", "copy", "number"))
    if deed == "delete":
        del container[key]
    elif deed == "rename" and isinstance(container, dict):
        container[rng.choice((f"{key}x", "", 7))] = container.pop(key)
    elif deed == "tensor" and isinstance(old, torch.Tensor):
        container[key] = _changed_tensor(old, rng)
    elif deed == "copy":
        other, place = rng.choice(_places(content))
        container[key] = copy.deepcopy(other[place])
    elif deed == "number" and isinstance(old, (int, float)):
        container[key] = rng.choice((-old, old + 1, old * 1000, str(old), float(old), [old]))
    else:
        container[key] = _values(rng)
    return f"{deed} {key!r}; "


def _changed_tensor(tensor: torch.Tensor, rng: random.Random) -> Any:
    kind = rng.choice(("nan", "shape", "cut", "double", "integer", "scalar", "list", "strided", "parameter"))
    if kind == "nan" and tensor.is_floating_point() and tensor.numel():
        tensor = tensor.clone()
        tensor.view(-1)[rng.randrange(tensor.numel())] = rng.choice((math.nan, math.inf))
        return tensor
    return {
        "shape": lambda: tensor.unsqueeze(0),
        "cut": lambda: tensor.reshape(-1)[:-1],
        "double": lambda: tensor.double(),
        "integer": lambda: tensor.to(torch.int64),
        "scalar": lambda: tensor.reshape(-1)[:1].sum(),
        "list": tensor.tolist,
        "strided": lambda: tensor.reshape(-1)[:1].expand(7),
        "parameter": lambda: torch.nn.Parameter(tensor.float()),
        "nan": lambda: tensor * 0,
    }[kind]()


def _damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, replaced, removed, doubled or moved."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place, length = rng.randrange(len(changed)), rng.choice((1, 1, 2, 16, 200))
        kind = rng.choice(("bit", "bit", "byte", "remove", "zero", "insert", "repeat"))
        if kind == "bit":
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            changed[place] = rng.randrange(256)
        elif kind == "remove":
            del changed[place : place + length]
        elif kind == "zero":
            changed[place : place + length] = bytes(len(changed[place : place + length]))
        elif kind == "insert":
            changed[place:place] = rng.randbytes(length)
        else:
            changed[place:place] = changed[max(0, place - length) : place]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def _with_pickle(whole: bytes, rng: random.Random) -> bytes:
    """A zip whose pickle is damaged and whose checksums are right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, _damaged(data, rng) if name.endswith(_PICKLE) else data)
    return out.getvalue()


def _with_damage(whole: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.2:
        return whole[: rng.randrange(len(whole))]
    return _damaged(whole, rng)
