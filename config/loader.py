"""Config files: Python files of plain assignments, which may build on others through `_base_`."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from addict import Dict

from config.official import COMMAND_LINE_FLAGS
from config.schema import Config, known_keys
from config.values import shown
from util.errors import UserError, first_line, nearest

_log = logging.getLogger(__name__)

BASE = "_base_"
# An official file may lie anywhere; the file that it builds on is here.
_OWN_BASES = Path(__file__).parent / "RichSem"
_COMMAND_LINE = "--options"
# Files that may build on one another, and files that are read in all: bases that make up names never end.
_LONGEST_CHAIN, _MOST_FILES = 50, 500


def load(path: str | Path, overrides: Mapping[str, Any] | None = None, source: str = _COMMAND_LINE) -> Config:
    """The Config of a file, with `overrides` (see `parse_options`) on top. Errors name `source`, if any.

    `_base_` names one file or a list of files, relative to the file; later values win. Names that start with
    an underscore and modules are the file's own affair. Raises UserError, in one line that names the file,
    for a missing or broken file, a missing base, a cycle, and whatever `Config.from_dict` refuses.
    """
    values, origins = _Reader().read(Path(path), chain=())
    overrides = overrides or {}
    origins.update(dict.fromkeys(overrides, source))
    return Config.from_dict(_merged(Path(path), values, overrides), origins)


def read_values(path: str | Path) -> dict[str, Any]:
    """The names that a file and its `_base_` files assign, for files in config style that are no config.

    Raises UserError as `load` does for the file itself.
    """
    return _Reader().read(Path(path), chain=())[0]


def with_overrides(config: Config, overrides: Mapping[str, Any] | None) -> Config:
    """`config` (for example a checkpoint's) with command line options on top."""
    overrides = overrides or {}
    return Config.from_dict(merged(config.to_dict(), overrides), dict.fromkeys(overrides, _COMMAND_LINE))


class _Reader:
    """Reads one config file with its bases."""

    def __init__(self) -> None:
        self._files = 0

    def read(self, path: Path, chain: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
        """Key -> value and key -> file of a config file with its bases. chain: the files that led here."""
        # Path.resolve raises for links in a circle.
        resolved = Path(os.path.realpath(path))
        if resolved in chain:
            cycle = " -> ".join(p.name for p in (*chain[chain.index(resolved) :], resolved))
            raise UserError(f"config file '{path}': {BASE} goes in a circle: {cycle}")
        self._files += 1
        if len(chain) >= _LONGEST_CHAIN or self._files > _MOST_FILES:
            raise UserError(
                f"config file '{path}': {BASE} leads through more than {_LONGEST_CHAIN} files in a row, or "
                f"{_MOST_FILES} in all"
            )
        assigned = _execute(path)
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for base in _base_names(path, assigned.get(BASE, ())):
            base_values, base_origins = self.read(_find_base(path, base), (*chain, resolved))
            values = _merged(path, values, base_values)
            origins.update(base_origins)
        own = {k: v for k, v in assigned.items() if not k.startswith("_") and not isinstance(v, ModuleType)}
        origins.update(dict.fromkeys(own, str(path)))
        return _merged(path, values, own), origins


def _merged(path: Path, earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return merged(earlier, later)
    except RecursionError:
        raise UserError(f"config file '{path}': a value holds itself, or is nested too deeply") from None


def _execute(path: Path) -> dict[str, Any]:
    """The names that the file assigns, run in a namespace of its own."""
    if not _is_file(path):
        beside = path.parent.glob("*.py") if path.parent.is_dir() else ()
        raise UserError(f"config file '{path}' does not exist.{nearest(path.name, (p.name for p in beside))}")
    namespace: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), namespace)
    except SyntaxError as error:
        raise UserError(f"config file '{path}', line {error.lineno}: {error.msg}") from None
    # Whatever goes wrong in a config file is its author's to fix, so every kind of error is caught.
    except (Exception, SystemExit) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        # The error's own message is code of the file too.
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"config file '{path}'{where}: {reason}") from None
    return {k: v for k, v in namespace.items() if not k.startswith("__")}


def _base_names(path: Path, bases: Any) -> list[str]:
    names = [bases] if isinstance(bases, str) else bases
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"config file '{path}': {BASE} = {shown(bases)} must be a file name or a list of file names"
        )
    return list(names)


def _find_base(path: Path, base: str) -> Path:
    """The base beside the file, or ours of the same name."""
    beside = path.parent / base
    if _is_file(beside):
        return beside
    own = _OWN_BASES / Path(base).name
    if _is_file(own):
        _log.warning("config file '%s': %s '%s' is not beside it, using '%s'", path, BASE, base, own)
        return own
    raise UserError(f"config file '{path}': {BASE} '{base}' does not exist (looked for '{beside}')")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False


DELETE = "_delete_"


def merged(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """`earlier` overwritten by `later`; neither is changed.

    Two dicts merge key by key, as in the official release; a later dict with `_delete_=True` replaces the
    earlier one.
    """
    result = Dict(earlier)
    for name, value in later.items():
        if _deletes(value):
            result.pop(name, None)
        if isinstance(value, Mapping):
            value = {key: entry for key, entry in value.items() if key != DELETE}
        result.update({name: value})
    return result.to_dict()


def merged_overrides(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """As `merged`, but `_delete_` stays: what it replaces, the config file's value, is still to come."""
    result = merged(earlier, later)
    for name, value in result.items():
        if isinstance(value, dict) and (_deletes(earlier.get(name)) or _deletes(later.get(name))):
            value[DELETE] = True
    return result


def _deletes(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value.get(DELETE))


def from_official_args(args: Mapping[str, Any]) -> Config:
    """A Config from `vars()` of the argparse Namespace that an official checkpoint keeps under `args`.

    It mixes config keys with command line flags and what the run added. Flags are dropped; other names that
    are no keys were not written by the user, so they are logged in one line rather than refused.
    Its numbers are those of float32: `amp` is False.
    Raises UserError like `Config.from_dict`, for example where a left-out feature was in use.
    """
    known = set(known_keys()) - COMMAND_LINE_FLAGS
    stray = sorted(set(args) - known - COMMAND_LINE_FLAGS)
    if stray:
        _log.warning("ignored %d entries of the official checkpoint's args: %s", len(stray), ", ".join(stray))
    values = {k: v for k, v in args.items() if k in known}
    return Config.from_dict({**values, "amp": False})
