"""Files of `torch.save`: read as plain data, with their checksums, and errors that say what is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from util import file_kind
from util.checksum import ChecksumError, check_zip
from util.errors import UserError, first_line

DAMAGED = "damaged: its content does not match its checksum"
# How torch names, in a message of many lines, what a pickle asks for that is no plain data.
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")
_MARKER = "WeightsUnpickler error: "


def bare_name(name: str) -> str:
    """A tensor's name without what DistributedDataParallel and torch.compile put before it."""
    return _WRAPPERS.sub("", name)


def read_torch_file(path: Path, allowed: Sequence[type] = ()) -> Any:
    """The content, on the CPU. Tensors and plain data only: no code of the file runs.

    torch's own reader compares no checksums, so this reads the file twice.
    allowed: plain classes that it may hold besides. Raises UserError, one line that names the file, where it
    cannot be read, is damaged, is something else (an HTML page, a git-lfs pointer, ...), or asks for code.
    """
    try:
        if (reason := file_kind.describe(path)) is not None:
            raise UserError(f"{path}: {reason}")
        check_zip(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ChecksumError as error:
        raise UserError(f"{path}: {DAMAGED}") from error
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, struct, index, memory and key errors, by kind of damage
        raise UserError(f"{path}: damaged, or not plain data ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """torch's reason in one line, without its advice to load the file in a way that runs code."""
    text = str(error)
    if found := _GLOBAL.search(text):
        return f"it asks for {found[1]}"
    _, found_marker, reason = text.partition(_MARKER)
    if found_marker:
        return first_line(Exception(reason))
    return type(error).__name__ if "weights_only" in text else first_line(error)
