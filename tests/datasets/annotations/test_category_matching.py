import pytest

from datasets.annotations.categories import Category
from datasets.annotations.category_matching import match_categories, nearest_class

TARGET = (
    Category(1, "aerosol_can", "aerosol.n.02", ("aerosol_can", "spray_can")),
    Category(2, "bat_(animal)", "bat.n.01", ("bat",)),
    Category(3, "bat_(club)", "bat.n.05", ("bat", "club")),
    Category(4, "tomato", "tomato.n.01"),
    Category(5, "hot_dog"),
    Category(6, "Hot Dog", "frank.n.02"),
)


def matched(category):
    """Target id, the names that it may mean, or None."""
    matches = match_categories([category], TARGET)
    assert len(matches.target_of) + len(matches.ambiguous) + len(matches.unmatched) == 1
    return matches.target_of.get(category.id) or matches.ambiguous.get(category.id)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Category(10, "aerosol_can"), 1),
        (Category(10, "Aerosol can"), 1),
        (Category(10, "spray-can"), 1),
        (Category(10, "SprayCan"), 1),
        (Category(10, "flittermouse", "bat.n.01"), 2),
        (Category(10, "bat.n.05"), 3),
        (Category(10, "bat animal"), 2),
        (Category(10, "love apple", synonyms=("tomato",)), 4),
        (Category(10, "zebra"), None),
        # What may mean several classes means none, unless something else tells.
        (Category(10, "bat"), ("bat_(animal)", "bat_(club)")),
        (Category(10, "bat", "bat.n.01"), 2),
        (Category(10, "bat", synonyms=("club",)), 3),
        (Category(10, "bat", synonyms=("tomato",)), ("bat_(animal)", "bat_(club)")),
        # A name as it is wins over one that differs in case or underscores.
        (Category(10, "hot_dog"), 5),
        (Category(10, "Hot Dog"), 6),
        (Category(10, "HOT-DOG"), ("hot_dog", "Hot Dog")),
        (Category(10, "HOT-DOG", "frank.n.02"), 6),
        (Category(10, "++"), None),
    ],
)
def test_what_a_category_means(source, expected):
    assert matched(source) == expected


def test_no_synset_equals_no_synset():
    assert matched(Category(10, "zebra", "")) is None


def test_the_nearest_class_may_be_found_by_a_synonym():
    assert nearest_class("Tomatoe", TARGET) == "tomato"
    assert nearest_class("spray cans", TARGET) == "aerosol_can"
    assert nearest_class("xylophone", TARGET) == ""
