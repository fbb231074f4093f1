"""The classes of LVIS v1 and their WordNet ids, without an annotation file or WordNet.

They are in `lvis_v1_classes.tsv`, whose header states their source.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import msgspec

_TABLE = Path(__file__).with_name("lvis_v1_classes.tsv")
# ImageNet's name of a class: n and eight digits, the offset of the noun in WordNet 3.0. Some archives append
# a word: n07753592_banana.
_WNID = re.compile(r"n\d{8}(?![^_\W])")


class LvisClass(msgspec.Struct, frozen=True):
    """One class, under the keys of LVIS's `categories`.

    definition:  LVIS's `def`.  wnid: ImageNet's name of the class, '' for the 206 without one.
    image_count, instance_count: of lvis_v1_train.json.
    """

    id: int
    name: str
    synset: str
    synonyms: tuple[str, ...]
    definition: str = msgspec.field(name="def")
    frequency: str
    image_count: int
    instance_count: int
    wnid: str

    def to_json(self) -> dict:
        """As LVIS writes it in `categories`."""
        entry = msgspec.to_builtins(self) | {"synonyms": list(self.synonyms)}
        del entry["wnid"]
        return entry


@cache
def lvis_v1_classes() -> tuple[LvisClass, ...]:
    """All 1,203, in order of id."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        lines = (line for line in file if not line.startswith("#"))
        return tuple(
            msgspec.convert(row | {"synonyms": row["synonyms"].split(",")}, LvisClass, strict=False)
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        )


@cache
def classes_by_wnid() -> Mapping[str, LvisClass]:
    """WordNet id -> class, the 997 of ImageNet-LVIS."""
    return MappingProxyType({c.wnid: c for c in lvis_v1_classes() if c.wnid})


def wnid_in(name: str) -> str:
    """The WordNet id that a folder or file name starts with, '' where it starts with none."""
    found = _WNID.match(name)
    return found.group() if found else ""
