"""What a `.pt2` file may hold. torch.export itself unpickles, evaluates and loads what a file asks for."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from util.checksum import ChecksumError, check_zip
from util.errors import UserError
from util.torch_file import DAMAGED

# Members below the archive's own folder: those without code, and those that are looked into.
_PLAIN = re.compile(
    r"\.data/\w+|archive_format|archive_version|byteorder|version|extra(?:_files)?/\w+"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+"
)
_GRAPHS = re.compile(
    r"(?:models/\w+|data/(?:weights|constants)/\w+_config|serialized_exported_program)\.json"
)
_TENSORS = re.compile(r"(?:data/(?:sample_inputs|weights|constants)/\w+|serialized_\w+)\.pt")
# Operators that only compute. `from_file` reads and writes files.
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b)\w+\.\w+|torch\.sym_\w+"
    r"|_operator\.(?:add|sub|mul|neg|pow|mod|floordiv|truediv|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
    r"|math\.(?:ceil|floor|trunc)"
)
# Strings that stand for nothing but themselves: names, numbers, types, versions.
_WORD = re.compile(r"[\w.+:<>\- ]*")
# Sizes, which sympy evaluates, and conditions on them, which Python does: numbers, symbols, these functions.
_TOKENS = re.compile(r"[A-Za-z_]\w*|'[a-z]+\d+'|\d+(?:\.\d+)?|[-+*/%(),=<>! ]|.", re.S)
_FUNCTIONS = frozenset(
    re.findall(
        r"\w+",
        """
        Symbol Integer Rational Float Add Mul Pow Min Max Mod PythonMod FloorDiv CleanDiv CeilDiv IntTrueDiv
        TruncToInt RoundToInt CeilToInt FloorToInt ToFloat Eq Ne Lt Le Gt Ge And Or Not Piecewise Where oo
        int_oo true false True False positive integer real nonnegative evaluate and or not min max
        """,
    )
)
_SYMBOL = re.compile(r"[a-z]+\d+")
_SIZE = re.compile(r"L\['\w+'\]\.size\(\)\[\d+\]")
_CONTAINERS = re.compile(r'"type": (?:null|"builtins\.(?:tuple|list|dict)")')
# A node's record of where it came from: kept, never evaluated.
_COMMENTS = ("metadata",)


class ForeignContentError(Exception):
    """Something that no export of this project holds, as the end of a sentence that begins with the file."""


def check_pt2(path: Path) -> None:
    """Raises UserError for a file that is damaged, or that could do more than compute when it is loaded."""
    try:
        if not check_zip(path):
            raise UserError(f"{path}: is no .pt2 file, or has no checksums")
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            # torch has another reader of zips, which finds the first of two names, in any case of letters.
            first = min((info.header_offset for info in archive.infolist()), default=0)
            if len({name.lower() for name in names}) < len(names) or archive.comment or first:
                raise ForeignContentError("is a zip that can be read in two ways")
            for name in names:
                _check_member(archive, name)
    except ChecksumError:
        raise UserError(f"{path}: {DAMAGED}") from None
    except (OSError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__})") from None
    except ForeignContentError as error:
        raise UserError(f"{path}: {error}, which no export of this project has; it is not loaded") from None


def _check_member(archive: zipfile.ZipFile, name: str) -> None:
    inner = name.partition("/")[2] or name
    if _GRAPHS.fullmatch(inner):
        _check_json(json.loads(archive.read(name)))
    elif _TENSORS.fullmatch(inner):
        _check_tensors(archive.read(name), inner)
    elif not _PLAIN.fullmatch(inner):
        raise ForeignContentError(f"holds {inner[:100]!r}")


def _check_tensors(content: bytes, name: str) -> None:
    """Where plain reading fails, torch.export reads again, and runs what it reads."""
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise ForeignContentError(f"asks for code in {name[:100]!r}") from error


def _check_json(content: Any) -> None:
    for key, value in _leaves(content):
        if key == "use_pickle" and value not in (False, None):
            raise ForeignContentError("has pickled tensors")
        if isinstance(value, str) and not _is_harmless(key, value):
            raise ForeignContentError(f"has {value[:80]!r} as {key[:40]!r}")


def _is_harmless(key: str, text: str) -> bool:
    if key in ("target", "as_operator"):
        return _OPERATOR.fullmatch(text) is not None
    if key == "expr_str":
        return _is_arithmetic(text)
    if key == "guards_code":
        return _is_arithmetic(_SIZE.sub("s0", text))
    if key in ("in_spec", "out_spec"):
        return text.count('"type":') == len(_CONTAINERS.findall(text)) and "default_factory" not in text
    return _WORD.fullmatch(text) is not None


def _is_arithmetic(text: str) -> bool:
    if len(text) > 10_000:
        return False
    for token in _TOKENS.findall(text):
        if token[0].isalpha() or token[0] == "_":
            if token not in _FUNCTIONS and not _SYMBOL.fullmatch(token):
                return False
        elif len(token) == 1 and token not in "-+*/%(),=<>! 0123456789":
            return False
    return True


def _leaves(content: Any) -> Iterator[tuple[str, Any]]:
    """Every value that is no container, after the key it stands under; and every key, after ''."""
    pending: list[tuple[str, Any]] = [("", content)]
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            yield from (("", name) for name in value)
            pending += [item for item in value.items() if item[0] not in _COMMENTS]
        elif isinstance(value, list):
            pending += [(key, item) for item in value]
        else:
            yield key, value
