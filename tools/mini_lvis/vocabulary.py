"""The 40 classes: words for a pattern, a colour and a shape, and the training images meant for each.

Shapes, patterns and colours are spread evenly over the frequent and the common classes and over six of
the ten rare ones, so that a class is not hard because it is rare; each of those six shares two of its
three parts with some frequent or common class, so it cannot be told from them by one part alone. The
other four rare classes are made of parts that no other class has: nothing frequent teaches them.
"""

from dataclasses import dataclass

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

# Most frequent first. Balanced by search: within `f` and `c` every part appears as often as it can.
_FREQUENT = [
    "checkered_green_cross",
    "dotted_blue_ring",
    "striped_purple_star",
    "plain_orange_triangle",
    "checkered_orange_circle",
    "striped_blue_flower",
    "dotted_yellow_heart",
    "plain_red_cross",
    "striped_red_triangle",
    "plain_blue_square",
    "checkered_green_ring",
    "dotted_green_flower",
    "striped_yellow_star",
    "checkered_purple_circle",
    "dotted_orange_square",
]
_COMMON = [
    "plain_purple_square",
    "checkered_blue_star",
    "dotted_green_triangle",
    "striped_orange_cross",
    "plain_red_ring",
    "dotted_blue_heart",
    "striped_purple_flower",
    "checkered_orange_ring",
    "plain_yellow_flower",
    "dotted_red_circle",
    "striped_red_star",
    "plain_green_heart",
    "checkered_orange_cross",
    "dotted_yellow_triangle",
    "striped_purple_square",
]
_RARE = [
    "speckled_brown_bolt",
    "dotted_green_square",
    "plain_blue_flower",
    "wavy_pink_crescent",
    "striped_red_ring",
    "checkered_orange_heart",
    "zigzag_teal_arrow",
    "dotted_yellow_circle",
    "spiral_grey_drop",
    "checkered_purple_cross",
]
_RARE_COUNTS = (10, 10, 9, 8, 8, 7, 6, 5, 4, 4)
_FREQUENT_ENDS = (520, 118)
_COMMON_ENDS = (92, 14)


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


def _make_classes() -> tuple[MiniClass, ...]:
    counts = _falling(*_FREQUENT_ENDS, len(_FREQUENT)) + _falling(*_COMMON_ENDS, len(_COMMON))
    by_name = dict(zip(_FREQUENT + _COMMON + _RARE, counts + list(_RARE_COUNTS), strict=True))
    # Ids by name, as in LVIS: they tell nothing of the frequency.
    return tuple(
        MiniClass(i, Kind(*n.split("_")), by_name[n]) for i, n in enumerate(sorted(by_name), start=1)
    )


CLASSES = _make_classes()
