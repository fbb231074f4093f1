"""Several data sets as one: what becomes of their classes."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from datasets.annotations.categories import Category
from datasets.annotations.class_union import NAME, NEW, ClassUnion, unite_classes
from tools.data_doctor.classes import image_counts
from tools.data_doctor.findings import Finding, Severity, found, warnings_as_findings
from tools.data_doctor.part import Part

_WHERE = "all data sets"


def unite(parts: Sequence[Part]) -> tuple[ClassUnion, list[Finding]]:
    """The classes of all sets as training makes one list of them, and what to look at."""
    own = {p.set_name: _categories(p) for p in parts if p.split == "train"}
    findings: list[Finding] = []
    with warnings_as_findings(_WHERE, findings):
        union = unite_classes(own)
    names = defaultdict(list)
    for set_name, members in union.members.items():
        for category, name, how in members:
            names[name].append((set_name, category.name, how))
    shared = {name: rows for name, rows in names.items() if len(rows) > 1}
    by_meaning = [
        f"{rows[0][1]!r} of {rows[0][0]} is {own_name!r} of {set_name} (same {how})"
        for rows in shared.values()
        for set_name, own_name, how in rows[1:]
        if how not in (NAME, NEW)
    ]
    findings += found(
        Severity.NOTE, _WHERE, "{n} classes have different names in different sets and become one",
        by_meaning, "if one of them is another thing, rename it (docs/data.md)",
    )  # fmt: skip
    counts = Counter(set_name for rows in names.values() if len(rows) == 1 for set_name, _, _ in rows)
    only = ", ".join(f"{count} in {set_name} only" for set_name, count in counts.items())
    what = f"{len(names):,} classes, {len(shared):,} of them in several sets{f'; {only}' if only else ''}"
    return union, [*findings, Finding(Severity.NOTE, _WHERE, what)]


def united_counts(union: ClassUnion, parts: Sequence[Part]) -> dict[int, int]:
    """Id of a class of the union -> training images with a box of it, in all sets."""
    counts: Counter[str] = Counter()
    for part in (p for p in parts if p.split == "train"):
        names = union.class_names.get(part.set_name, {})
        of_part = image_counts(part.raw)
        for category in part.raw.categories:
            counts[names.get(category.name, category.name)] += of_part.get(category.id, 0)
    return {c.id: counts[c.name] for c in union.categories}


def _categories(part: Part) -> Sequence[Category]:
    """Each class once: where training stops, the list may have faults."""
    categories = part.raw.categories if part.table is None else part.table.categories
    return list({c.name: c for c in categories}.values())
