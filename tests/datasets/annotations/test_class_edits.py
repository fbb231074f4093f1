"""Classes merged, renamed and left out: boxes, ids and every list of the table follow."""

import pytest

from datasets.annotations.class_edits import ClassEdits, edited, kept
from tests.datasets.sets import table
from tests.datasets.tiny import judged_lists
from util.errors import UserError

CLASSES = ["car", "truck", "cat", "dog"]
IMAGES = [["car", "truck"], ["truck"], ["cat"], ["dog", "car"]]


def shown(found):
    """For each image, its boxes as (class, left edge)."""
    names = [found.categories[i].name for i in found.category_index]
    pairs = list(zip(names, found.boxes_xywh[:, 0].tolist(), strict=True))
    return [pairs[found.rows(i)] for i in range(len(found))]


def listed(found, key):
    return [{found.categories[c].name for c in getattr(found, key)[i]} for i in range(len(found))]


def test_a_merged_class_has_the_boxes_of_its_parts_and_the_id_of_the_first():
    found = edited(table("t", CLASSES, IMAGES), ClassEdits(merge={"vehicle": ("truck", "car")}))
    assert [(c.id, c.name, c.image_count) for c in found.categories] == [
        (2, "vehicle", 3),
        (3, "cat", 1),
        (4, "dog", 1),
    ]
    assert found.categories[0].synonyms == ("truck", "car")
    assert shown(found) == [
        [("vehicle", 5.0), ("vehicle", 40.0)],
        [("vehicle", 5.0)],
        [("cat", 5.0)],
        [("dog", 5.0), ("vehicle", 40.0)],
    ]


def test_a_merged_class_is_known_only_where_all_of_its_parts_are():
    lists = [
        {"neg_category_ids": ["cat"]},  # shows car and truck
        {"neg_category_ids": ["car"], "not_exhaustive_category_ids": ["dog"]},  # shows truck, no car
        {"neg_category_ids": ["car", "truck"]},  # neither
        {"neg_category_ids": [], "not_exhaustive_category_ids": ["car"]},  # car, and perhaps truck
    ]
    whole = table("t", CLASSES, IMAGES, lists)
    found = edited(whole, ClassEdits(merge={"vehicle": ("car", "truck")}))
    assert found.federated
    assert listed(found, "negatives") == [{"cat"}, set(), {"vehicle"}, set()]
    assert listed(found, "not_exhaustive") == [set(), {"dog"}, set(), {"vehicle"}]
    # A car is shown, of trucks nothing is known: unlabelled ones may be there.
    lists[3] = {"neg_category_ids": ["cat"]}
    found = edited(table("t", CLASSES, IMAGES, lists), ClassEdits(merge={"vehicle": ("car", "truck")}))
    assert listed(found, "not_exhaustive")[3] == {"vehicle"}


def test_judged_lists_follow():
    lists = [
        {"labelled_category_ids": ["car", "truck"]},
        {"labelled_category_ids": ["truck", "dog"]},
        {"labelled_category_ids": ["dog"]},
        {},
    ]
    edits = ClassEdits(merge={"vehicle": ("car", "truck")}, rename={"dog": "hound"})
    found = kept(edited(table("t", CLASSES, IMAGES, lists), edits), ["vehicle", "hound"])
    judged = [{found.categories[c].name for c in row} for row in judged_lists(found)]
    # The second image was searched for trucks alone.
    assert judged == [{"vehicle"}, {"hound"}, {"hound"}, set()]
    assert (found.judged_list < 0).tolist() == [False, False, False, True] and len(found.judged) == 2
    assert listed(found, "not_exhaustive") == [set(), {"vehicle"}, set(), {"vehicle"}]


def test_renaming_keeps_the_old_name_as_a_synonym_and_may_swap():
    found = edited(table("t", CLASSES, IMAGES), ClassEdits(rename={"car": "truck", "truck": "car"}))
    assert [(c.name, c.synonyms) for c in found.categories[:2]] == [("truck", ("car",)), ("car", ("truck",))]
    assert shown(found)[1] == [("car", 5.0)]


def test_classes_are_kept_with_their_boxes_and_lists():
    lists = [{"neg_category_ids": ["cat", "dog"]}] * 4
    found = kept(table("t", CLASSES, IMAGES, lists), ("dog", "car"))
    assert [(c.id, c.name) for c in found.categories] == [(1, "car"), (4, "dog")]
    assert shown(found) == [[("car", 5.0)], [], [], [("dog", 5.0), ("car", 40.0)]]
    assert listed(found, "negatives") == [{"dog"}] * 4 and found.federated and len(found) == 4
    assert found.file_names[2] == "3.png"


NAMES = set(CLASSES)


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        (
            ClassEdits(merge={"v": ("car", "trucks")}),
            "merge: the data has no class 'trucks'. Did you mean 'truck'",
        ),
        (ClassEdits(merge={"v": ("car",), "w": ("car", "dog")}), "merge: 'car' is a part of 'v' and of 'w'"),
        (ClassEdits(merge={"v": ()}), "merge: 'v' has no classes"),
        (ClassEdits(merge={"cat": ("car", "dog")}), "merge: 'cat' is already a class"),
        (ClassEdits(rename={"hors": "horse"}), "rename: the data has no class 'hors'"),
        (
            ClassEdits(merge={"v": ("car", "dog")}, rename={"car": "x"}),
            "rename: the data has no class 'car' ('car' is merged into 'v')",
        ),
    ],
)
def test_names_that_there_are_not(edits, words):
    with pytest.raises(UserError) as caught:
        edits.check_sources(NAMES)
    assert words in str(caught.value)


def test_classes_to_keep_are_named_as_they_are_then():
    edits = ClassEdits(rename={"car": "auto"}, classes=("car", "dog"))
    with pytest.raises(UserError, match="classes: the data has no class 'car'; it is now 'auto'"):
        edits.check_kept({"auto", "dog"})
    with pytest.raises(UserError, match="has none of the classes to keep"):
        kept(table("t", CLASSES, IMAGES), ["horse"])


def test_two_classes_of_one_name_are_a_merge():
    with pytest.raises(UserError, match=r"write merge=\{'pet': \['cat', 'dog'\]\}"):
        edited(table("t", CLASSES, IMAGES), ClassEdits(rename={"cat": "pet", "dog": "pet"}))


def test_a_trained_model_may_have_classes_that_the_validation_data_lacks():
    edits = ClassEdits({"vehicle": ("car", "lorry")}, {"wolf": "hound"}, ("vehicle", "hound"))
    with pytest.raises(UserError):
        edits.check_sources(NAMES)
    edits.check_sources(NAMES, trained=("vehicle", "hound"))
    edits.check_kept({"vehicle"}, trained=("vehicle", "hound"))
