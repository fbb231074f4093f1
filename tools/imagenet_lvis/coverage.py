"""Which classes have images, and what could not be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from datasets.annotations.categories import Category
from datasets.annotations.category_matching import Matches, nearest_class
from datasets.annotations.lvis_v1 import classes_by_wnid, wnid_in
from datasets.images.class_sources import ClassSource
from tools.imagenet_lvis.scan import Failure
from util.files import atomic_write

_GROUPS = (("rare", "r"), ("common", "c"), ("frequent", "f"))


@dataclass(frozen=True)
class Coverage:
    """categories: all.  image_counts: category id -> images.  failures: what could not be used.
    sources: folders or tars that were found.  matches: their classes, by index.  empty: those without images.
    """

    categories: Sequence[Category]
    image_counts: Mapping[int, int]
    failures: Sequence[Failure]
    sources: Sequence[ClassSource]
    matches: Matches
    empty: Sequence[str]

    @property
    def missing(self) -> list[tuple[str, str]]:
        """(WordNet id, class) of classes with a WordNet id and no image."""
        return [
            (wnid, c.name)
            for c in self.categories
            if (wnid := _wnids().get(c.synset)) and not self.image_counts.get(c.id)
        ]

    def summary(self) -> list[str]:
        """Lines for the console."""
        lines = [self._classes("classes with images", self.categories)]
        for group, letter in _GROUPS:
            if members := [c for c in self.categories if c.frequency == letter]:
                lines.append(self._classes(f"  {group}", members))
        counts = sorted(n for n in self.image_counts.values() if n)
        if counts:
            lines.append(
                f"images: {sum(counts):,}; {counts[0]:,} to {counts[-1]:,} a class, "
                f"median {counts[len(counts) // 2]:,}"
            )
        lines.append(f"failures: {len(self.failures):,}")
        if unused := len(self.matches.unmatched):
            lines.append(f"folders or tars that match no class: {unused:,}")
        lines += [f"ambiguous: {line}" for line in self._ambiguous()]
        return lines

    def write_report(self, path: Path) -> None:
        """Everything by name."""
        sections = {
            "summary": self.summary(),
            "failures": [f"{f.name}\t{f.reason}" for f in self.failures],
            "classes without images that have a WordNet id": [f"{w}\t{name}" for w, name in self.missing],
            "folders or tars without images": list(self.empty),
            "folders or tars that match several classes": self._ambiguous(),
            "folders or tars that match no class": self._unmatched(),
        }
        with atomic_write(path, durable=False) as file:
            for title, lines in sections.items():
                if lines:
                    file.write("\n".join((f"# {title}", *lines, "", "")))

    def _classes(self, what: str, members: Sequence[Category]) -> str:
        covered = sum(bool(self.image_counts.get(c.id)) for c in members)
        possible = sum(c.synset in _wnids() for c in members)
        return f"{what}: {covered} of {len(members)} ({possible} have a WordNet id)"

    def _ambiguous(self) -> list[str]:
        return [
            f"{self.sources[i].name!r} may mean {' or '.join(names)}"
            for i, names in self.matches.ambiguous.items()
        ]

    def _unmatched(self) -> list[str]:
        names = [self.sources[i].name for i in self.matches.unmatched]
        return [f"{n}\t{_nearest(n, self.categories)}".rstrip() for n in names]


def _nearest(name: str, categories: Sequence[Category]) -> str:
    # WordNet ids have no similar names.
    found = "" if wnid_in(name) else nearest_class(name, categories)
    return f"nearest: {found}" if found else ""


@cache
def _wnids() -> Mapping[str, str]:
    """Synset -> WordNet id, of LVIS v1's classes."""
    return {c.synset: wnid for wnid, c in classes_by_wnid().items()}
