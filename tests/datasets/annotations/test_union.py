"""Tables of several sets as one."""

import numpy as np

from datasets.annotations.class_union import unite_classes
from datasets.annotations.union import NamedTable, unite
from datasets.annotations.union_table import short_union_table, union_table
from tests.datasets.sets import PLACES, table
from tests.datasets.tiny import judged_lists

A = table("a.json", ["cat", "dog"], [["cat"], ["dog", "cat"]])
B = table("b.json", ["dog", "car", "bus"], [["car"], [], ["dog", "bus"]])
FEDERATED = table(
    "f.json",
    ["bus", "cat"],
    [["bus"], []],
    [{"neg_category_ids": ["cat"]}, {"neg_category_ids": [], "not_exhaustive_category_ids": ["bus"]}],
)


def united(**tables):
    classes = unite_classes({name: own.categories for name, own in tables.items()})
    return classes, unite([NamedTable(name, own) for name, own in tables.items()], classes)


def judged_in(found, image):
    return {found.categories[c].name for c in judged_lists(found)[image]}


def test_images_and_boxes_stand_one_set_after_another():
    _, union = united(a=A, b=B)
    found = union.table
    assert [c.name for c in found.categories] == ["cat", "dog", "car", "bus"]
    assert found.image_ids.tolist() == [1, 2, 3, 4, 5] and found.name == "a + b"
    assert [found.file_names[i] for i in range(5)] == ["a/1.png", "a/2.png", "b/1.png", "b/2.png", "b/3.png"]
    names = [[found.categories[c].name for c in found.category_index[found.rows(i)]] for i in range(5)]
    assert names == [["cat"], ["dog", "cat"], ["car"], [], ["dog", "bus"]]
    assert found.boxes_xywh[found.rows(4)].tolist() == [*PLACES[:2]]
    assert [(part.name, part.images) for part in union.parts] == [("a", slice(0, 2)), ("b", slice(2, 5))]


def test_an_exhaustive_set_judges_its_own_classes():
    _, union = united(a=A, b=B, f=FEDERATED)
    found = union.table
    assert found.federated and len(found.judged) == 2
    assert judged_in(found, 1) == {"cat", "dog"} and judged_in(found, 3) == {"dog", "car", "bus"}
    # LVIS's form says it by image.
    assert found.judged_list.tolist() == [0, 0, 1, 1, 1, -1, -1]
    lists = [
        {found.categories[c].name for c in rows[i]}
        for rows in (found.negatives, found.not_exhaustive)
        for i in (0, 5, 6)
    ]
    assert lists == [set(), {"cat"}, set(), set(), set(), {"bus"}]


def test_sets_of_the_same_classes_need_no_lists():
    _, union = united(a=A, b=table("again", ["dog", "cat"], [["cat"]]))
    assert not union.table.federated and (union.table.judged_list == -1).all()
    assert np.array_equal(union.table.category_index, [0, 1, 0, 0])


def test_labelled_classes_of_several_sets():
    first = table("a", ["cat", "dog"], [["cat"], []], [{"labelled_category_ids": ["cat"]}, {}])
    second = table(
        "b", ["cow", "cat"], [[], []], [{"labelled_category_ids": ["cat"]}, {"labelled_category_ids": []}]
    )
    _, union = united(a=first, b=second)
    found = union.table
    assert [judged_in(found, i) for i in range(4)] == [{"cat"}, set(), {"cat"}, set()]
    assert found.judged_list.tolist() == [0, -1, 0, 1]


def test_the_table_for_people(monkeypatch):
    classes, union = united(animals=A, street=B)
    lines = union_table(classes, union.parts).splitlines()
    assert lines[0].split("   ")[-1] == "street (3 classes, 3 images)"
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:]}
    assert rows["dog"] == ["dog", "(id", "2)", "1", "1", "dog", "(id", "1)", "1", "1"]
    assert rows["cat"] == ["cat", "(id", "1)", "2", "2", "-"]
    assert len({len(line) for line in lines if not line.endswith("-")}) == 1
    assert short_union_table(classes, union.parts).startswith(
        "4 classes of 2 data sets, 1 of them in more than one"
    )
    monkeypatch.setattr("datasets.annotations.union_table.MOST_SHOWN", 3)
    assert "cat" not in short_union_table(classes, union.parts).split("\n", 1)[1]
