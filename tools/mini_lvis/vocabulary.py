"""What a class is: words for a pattern, a colour and a shape, and the training images meant for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from datasets.annotations.frequency import frequency_of

COLOURS = {
    "red": (206, 42, 46),
    "blue": (44, 82, 198),
    "green": (48, 148, 62),
    "yellow": (230, 196, 46),
    "purple": (126, 58, 168),
    "orange": (234, 126, 34),
    "pink": (236, 122, 172),
    "teal": (30, 158, 160),
    "brown": (118, 74, 42),
    "grey": (132, 134, 138),
}
COMMON_SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "flower")
COMMON_PATTERNS = ("plain", "striped", "dotted", "checkered")
COMMON_COLOURS = ("red", "blue", "green", "yellow", "purple", "orange")
RARE_SHAPES = ("crescent", "arrow", "bolt", "drop")
RARE_PATTERNS = ("wavy", "zigzag", "speckled", "spiral")
RARE_COLOURS = ("pink", "teal", "brown", "grey")
# Training images of the most and the least common of the common classes, and of the least frequent one.
_COMMON_ENDS, _LEAST_FREQUENT = (92, 14), 118


@dataclass(frozen=True)
class Kind:
    """What can be drawn: a pattern in a colour on a shape."""

    pattern: str
    colour: str
    shape: str

    @property
    def name(self) -> str:
        return f"{self.pattern}_{self.colour}_{self.shape}"


@dataclass(frozen=True)
class MiniClass:
    """One class. `train_images` of 1200 training images are meant to show it."""

    id: int
    kind: Kind
    train_images: int

    @property
    def name(self) -> str:
        return self.kind.name

    @property
    def wnid(self) -> str:
        """A folder name of WordNet's form (n and 8 digits), outside the ids that WordNet uses."""
        return f"n99{self.id:06d}"


def _falling(first: float, last: float, count: int) -> list[int]:
    return [round(first * (last / first) ** (i / (count - 1))) for i in range(count)]


@dataclass(frozen=True)
class Vocabulary:
    """The classes of a data set, in the order of their ids.

    val_images: of 300 validation images, how many are meant to show a class, by its frequency.
    """

    classes: tuple[MiniClass, ...]
    val_images: Mapping[str, int]

    @cached_property
    def ids(self) -> dict[Kind, int]:
        """The id of each kind."""
        return {c.kind: c.id for c in self.classes}

    @cached_property
    def often_seen(self) -> tuple[MiniClass, ...]:
        """The classes that are not rare."""
        return tuple(c for c in self.classes if frequency_of(c.train_images) != "r")


def make_vocabulary(
    frequent: str,
    common: str,
    rare: str,
    *,
    most: int,
    rare_counts: Sequence[int],
    val_images: Mapping[str, int],
) -> Vocabulary:
    """frequent, common, rare: names of classes between spaces, most frequent first.

    most, rare_counts: training images of the most frequent class and of the rare ones.
    """
    often = _falling(most, _LEAST_FREQUENT, len(frequent.split()))
    often += _falling(*_COMMON_ENDS, len(common.split()))
    names = f"{frequent} {common} {rare}".split()
    by_name = dict(zip(names, (*often, *rare_counts), strict=True))
    # Ids by name, as in LVIS: they tell nothing of the frequency.
    classes = (MiniClass(i, Kind(*n.split("_")), by_name[n]) for i, n in enumerate(sorted(by_name), start=1))
    return Vocabulary(tuple(classes), val_images)
