import pytest

from datasets.annotations.categories import ClassTable
from util.errors import UserError


def category(identity, name, **more):
    return {"id": identity, "name": name, **more}


def test_order_is_that_of_ascending_ids_and_maps_back():
    table = ClassTable.from_categories(
        [category(9, "c", frequency="r", image_count=3), category(2, "a", frequency="f", image_count=200)]
    )
    assert table.names == ("a", "c") and table.ids == (2, 9)
    assert table.ids == (2, 9)
    assert table.image_counts == (200, 3) and table.frequencies == ("f", "r")


def test_a_checkpoints_names_give_the_order_and_a_column_without_category_has_no_id():
    table = ClassTable.from_categories(
        [category(1, "a", image_count=4), category(2, "b")], ["none", "b", "a"]
    )
    assert table.names == ("none", "b", "a") and table.ids == (-1, 2, 1)
    assert table.ids[1:] == (2, 1)
    assert table.image_counts == (0, 0, 4)


def test_a_class_that_the_checkpoint_lacks_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"'red_cirle' \(category id 7\).*Did you mean 'red_circle'\?"):
        ClassTable.from_categories([category(7, "red_cirle")], ["red_circle", "blue_square"])


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([], "class list is empty"),
        ([category(1, "a"), category(2, "a")], "class name 'a' occurs 2 times"),
        ([category(1, "a"), category(1, "b")], "category id 1 occurs 2 times"),
        ([category("one", "a")], "category 'one': its `id` is 'one': expected `int`"),
        ([category(1, "")], "its `name` is '': expected `str` of length"),
        ([category(1, "a", frequency="x")], "its `frequency` is 'x': expected r, c or f"),
    ],
)
def test_bad_class_lists_are_refused_in_one_line(categories, message):
    with pytest.raises(UserError, match=message) as caught:
        ClassTable.from_categories(categories)
    assert "\n" not in str(caught.value)


def test_names_that_differ_only_in_spelling_are_warned_of(caplog):
    ClassTable.from_categories([category(1, "hot_dog"), category(2, "Hot dog"), category(3, "cat")])
    assert "'hot_dog' and 'Hot dog' differ only" in caplog.text


def test_num_classes_may_be_derived_counted_or_official_but_not_wrong():
    table = ClassTable.from_categories([category(1, "a"), category(90, "b")])
    for accepted in (0, 2, 91, 1204):
        table.check_num_classes(accepted)
    with pytest.raises(UserError, match=r"num_classes=80 contradicts.* 2 classes"):
        table.check_num_classes(80)
