"""A grid file: which rows are compared, on which data, with which seeds, after how many images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from config import Config, load
from config.loader import merged_overrides, read_values
from util.errors import UserError, nearest

# Keys that the grid itself decides, in every row alike.
_DECIDED = {"max_steps": "images", "epochs": "images", "early_stop_patience": "images", "dry_run": "images"}


# Epochs of a row until its budget is known.
_MANY = 100_000
# Letters of a row's name.
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Grid:
    """What a grid file says. Its `only` names the rows to keep, in their order; pairs of others go with them.

    config:   config file that every row builds on.
    rows:     name -> its config keys, in the order of the table.
    images:   training images that every run sees, of both streams together; a mosaic counts as one.
    seeds:    each row runs once with each.
    baseline: the row that the others are compared with; '' for the first.
    compare:  further pairs of rows: (row, the row that it is compared with).
    data:     the data folder; `--data_path` overrides it.
    options:  config keys of all rows; a row's own win.
    folds:    0 for the data's own validation split, else its training and validation images in so many folds.
    threads:  of a run on a CPU. Sums in another number of threads are rounded otherwise.
    """

    config: str
    rows: Mapping[str, Mapping[str, Any]]
    images: int
    seeds: tuple[int, ...] = (1, 2, 3)
    baseline: str = ""
    compare: tuple[tuple[str, str], ...] = ()
    data: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    folds: int = 0
    threads: int = 1

    def config_of(self, row: str) -> Config:
        """The row's config, without its budget. Raises UserError that names the row."""
        try:
            overrides = merged_overrides(self.options, self.rows[row])
            # The budget decides later; what depends on epochs is checked then.
            return load(self.config, {**overrides, "epochs": _MANY}, source="")
        except UserError as error:
            raise UserError(f"row {row!r}: {error}") from None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every row with the baseline, then `compare`."""
        return [(row, self.baseline) for row in self.rows if row != self.baseline] + list(self.compare)

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """1..folds; 0 alone for the data's own split."""
        return tuple(range(1, self.folds + 1)) if self.folds else (0,)


def read_grid(path: Path) -> Grid:
    """The grid of a file, which is read as config files are: plain assignments, `_base_`.

    Raises UserError that names the file and what is wrong.
    """
    values = read_values(path)
    known = {f.name for f in fields(Grid)} | {"only"}
    try:
        for name in values:
            if name not in known:
                raise UserError(f"unknown name {name!r}.{nearest(name, known)}")
        for name in ("config", "rows", "images"):
            if name not in values:
                raise UserError(f"does not say {name!r}")
        for name, value in values.items():
            _check_type(name, value)
        _check_numbers(values)
        rows = values["rows"]
        baseline = values.get("baseline") or next(iter(rows))
        compare = tuple((str(row), str(other)) for row, other in values.get("compare", ()))
        only = values.pop("only", ())
        _check_rows(rows, baseline, compare, only, values.get("options", {}))
        if only:
            values["rows"] = {name: rows[name] for name in only}
            compare = tuple(pair for pair in compare if set(pair) <= set(only))
    except UserError as error:
        raise UserError(f"grid {path}: {error}") from None
    seeds = tuple(values.get("seeds", Grid.seeds))
    return Grid(**{**values, "seeds": seeds, "baseline": baseline, "compare": compare})


def _check_name(name: str) -> None:
    """It is the name of a folder, and stands in a table."""
    if not slug(name):
        raise UserError(f"row {name!r} needs a letter a to z, or a digit, in its name")
    if len(name) > _LONGEST_NAME:
        raise UserError(f"row {name:.40}...: a name has at most {_LONGEST_NAME} letters")
    if not name.isprintable() or "|" in name:
        raise UserError(f"row {name!r}: a name has no line breaks and no '|'")


def slug(name: str) -> str:
    """A row's name as the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


_TYPES: dict[str, tuple[str, Any]] = {
    "config": ("a file name", lambda v: isinstance(v, str) and v and v.isprintable()),
    "data": ("a folder name", lambda v: isinstance(v, str) and v.isprintable()),
    "baseline": ("the name of a row", lambda v: isinstance(v, str)),
    "rows": (
        "a dict of dicts, {'name': {key: value}}",
        lambda v: (
            isinstance(v, Mapping)
            and v
            and all(isinstance(n, str) and isinstance(o, Mapping) for n, o in v.items())
        ),
    ),
    "options": ("a dict of config keys", lambda v: isinstance(v, Mapping)),
    "images": ("a whole number", lambda v: type(v) is int),
    "folds": ("a whole number", lambda v: type(v) is int),
    "threads": ("a whole number", lambda v: type(v) is int),
    "seeds": (
        "a list of whole numbers",
        lambda v: isinstance(v, (list, tuple)) and v and all(type(s) is int for s in v),
    ),
    "only": (
        "a list of rows",
        lambda v: isinstance(v, (list, tuple)) and all(isinstance(name, str) for name in v),
    ),
    "compare": (
        "a list of pairs of rows",
        lambda v: (
            isinstance(v, (list, tuple)) and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in v)
        ),
    ),
}


def _check_type(name: str, value: Any) -> None:
    wanted, fits = _TYPES[name]
    if not fits(value):
        raise UserError(f"{name} = {value!r:.80} must be {wanted}")


def _check_numbers(values: Mapping[str, Any]) -> None:
    for name, least in (("images", 1), ("threads", 1)):
        if values.get(name, least) < least:
            raise UserError(f"{name} = {values[name]} must be at least {least}")
    if values.get("folds", 0) not in (0, *range(2, 101)):
        raise UserError(f"folds = {values['folds']} must be 0 or 2..100")
    seeds = values.get("seeds", Grid.seeds)
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UserError(f"seeds = {list(seeds)} must be different numbers, none below 0")


def _check_rows(
    rows: Mapping[str, Mapping[str, Any]],
    baseline: str,
    compare: tuple[tuple[str, str], ...],
    only: Sequence[str],
    options: Mapping[str, Any],
) -> None:
    compared = [row for pair in compare for row in pair]
    for key, names in (("baseline", [baseline]), ("compare", compared), ("only", only)):
        for name in names:
            if name not in rows:
                raise UserError(f"{key}: {name!r} is no row.{nearest(name, rows)}")
    if only and baseline not in only:
        raise UserError(f"only leaves out the baseline, {baseline!r}")
    for row, other in compare:
        if row == other:
            raise UserError(f"compare: {row!r} beside itself")
    folders: dict[str, str] = {}
    for name, own in rows.items():
        _check_name(name)
        other = folders.setdefault(slug(name), name)
        if other != name:
            raise UserError(f"rows {other!r} and {name!r} need names that differ in a letter or digit")
        for key in {**options, **own}:
            if key in _DECIDED:
                raise UserError(f"row {name!r}: {key} is not a row's to say: {_DECIDED[key]} decides for all")
