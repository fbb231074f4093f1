"""AP of each class as a table for the console."""

from collections.abc import Sequence

from datasets.annotations.frequency import group_of
from datasets.evaluation.result import ClassResult
from util.errors import listed

_GROUPS = {"r": "rare", "c": "common", "f": "frequent"}
_HEAD = (
    f"{'AP':>8} {'AP50':>8} {'recall':>8} {'train images':>13} {'val boxes':>10} {'detections':>11}  class"
)


def class_table(classes: Sequence[ClassResult], image_counts: Sequence[int]) -> str:
    """Rare classes first, then common and frequent ones, the worst of each group first; 0..100.

    image_counts: training images of each class. A class without a frequency gets LVIS's group of that count.
    Classes without a box in the validation set have no AP; the last line counts them.
    """
    lines = [_HEAD]
    rows = list(zip(classes, image_counts, strict=True))
    for group, title in _GROUPS.items():
        members = [
            (result.ap, result.name, result, count)
            for result, count in rows
            if result.ap is not None and group_of(result.frequency, count) == group
        ]
        if not members:
            continue
        mean = 100 * sum(member[0] for member in members) / len(members)
        lines.append(f"{mean:>8.2f}{'':54}  = mean of the {title} classes ({len(members)})")
        lines += [_row(result, count) for _, _, result, count in sorted(members, key=lambda m: m[:2])]
    absent = [result.name for result, _ in rows if result.ap is None]
    if absent:
        lines.append(f"no box in the validation set, so no AP: {listed(absent, 1)}")
    return "\n".join(lines)


def _row(result: ClassResult, count: int) -> str:
    ap, ap50, recall = (100 * (value or 0.0) for value in (result.ap, result.ap50, result.recall))
    numbers = f"{ap:>8.2f} {ap50:>8.2f} {recall:>8.2f} {count:>13} {result.boxes:>10} {result.detections:>11}"
    return f"{numbers}  {result.name}"
