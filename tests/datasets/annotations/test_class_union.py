"""Class lists of several sets: what is one class, and what only looks like it."""

import logging

from datasets.annotations.categories import Category
from datasets.annotations.class_union import unite_classes


def named(*names):
    return [Category(number + 1, name) for number, name in enumerate(names)]


def matched(union, name):
    return [(own.name, new, how) for own, new, how in union.members[name]]


def test_by_name_synset_and_synonym():
    first = [
        Category(3, "cup", image_count=4),
        Category(7, "car_(automobile)", "car.n.01", ("auto",), "f", 150),
        Category(9, "sofa", synonyms=("couch",), image_count=1),
    ]
    second = [
        Category(1, "Cup", image_count=2),
        Category(2, "motorcar", "car.n.01", image_count=5),
        Category(3, "couch"),
        Category(4, "lamp", frequency="r", image_count=3),
    ]
    union = unite_classes({"a": first, "b": second})
    assert [(c.id, c.name, c.image_count) for c in union.categories] == [
        (3, "cup", 6),
        (7, "car_(automobile)", 155),
        (9, "sofa", 1),
        (10, "lamp", 3),
    ]
    assert matched(union, "b") == [
        ("Cup", "cup", "name"),
        ("motorcar", "car_(automobile)", "synset"),
        ("couch", "sofa", "synonym"),
        ("lamp", "lamp", ""),
    ]
    # A file's frequency counts its own images: it stands for no sum.
    assert [c.frequency for c in union.categories] == ["", "", "", "r"]
    assert union.categories[1].synonyms == ("auto", "motorcar")


def test_a_third_set_matches_by_the_words_of_the_first_two():
    sets = {
        "a": [Category(1, "sofa", synonyms=("couch",))],
        "b": [Category(1, "couch", synonyms=("settee",))],
        "c": named("settee"),
    }
    assert matched(unite_classes(sets), "c") == [("settee", "sofa", "synonym")]


def test_what_may_mean_two_classes_stays_one_of_its_own(caplog):
    first = [Category(1, "bat_(animal)", synonyms=("bat",)), Category(2, "baseball_bat", synonyms=("bat",))]
    with caplog.at_level(logging.WARNING):
        union = unite_classes({"a": first, "b": named("bat")})
    assert [c.name for c in union.categories] == ["bat_(animal)", "baseball_bat", "bat"]
    assert "'bat' of b may mean 'bat_(animal)' or 'baseball_bat'" in caplog.text


def test_a_set_gives_a_class_of_the_union_one_of_its_own(caplog):
    first = [Category(1, "cup", synonyms=("mug", "beaker"))]
    with caplog.at_level(logging.WARNING):
        union = unite_classes({"a": first, "b": named("mug", "cup")})
        both = unite_classes({"a": first, "b": named("mug", "beaker")})
    assert matched(union, "b") == [("mug", "mug", ""), ("cup", "cup", "name")]
    assert "'mug' of b mean 'cup' too" in caplog.text
    # Neither fits better: neither is it.
    assert [c.name for c in both.categories] == ["cup", "mug", "beaker"]


def test_one_name_with_two_meanings_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        unite_classes({"a": [Category(1, "bow", "bow.n.04")], "b": [Category(1, "bow", "bow.n.02")]})
    assert "'bow.n.04'" in caplog.text and "'bow.n.02'" in caplog.text


def test_what_training_found_decides_in_evaluation():
    """The validation file of the first set lacks the class that gave the union its name."""
    train = {
        "a": [Category(1, "sofa", synonyms=("couch",)), *named("cup", "lamp")[1:]],
        "b": named("couch", "rug"),
    }
    known = unite_classes(train).class_names
    union = unite_classes({"a": named("lamp"), "b": named("rug", "couch")}, known)
    assert {c.name for c in union.categories} == {"lamp", "rug", "sofa"}
    assert matched(union, "b")[1][:2] == ("couch", "sofa")


def test_the_index_and_a_part_of_the_list():
    union = unite_classes({"a": named("cup", "car"), "b": named("cat", "car")})
    assert union.index("b", named("car", "cat")).tolist() == [1, 2]
    part = union.only({"cat", "cup"})
    assert [c.name for c in part.categories] == ["cup", "cat"] and list(part.class_names["b"]) == ["cat"]
