import json
from collections import Counter

import pytest

from datasets.annotations.lvis_v1 import classes_by_wnid, lvis_v1_classes, wnid_in
from tests.fixtures import require_fixture


def test_the_table_is_whole():
    classes = lvis_v1_classes()
    assert [c.id for c in classes] == list(range(1, 1204))
    assert Counter(c.frequency for c in classes) == {"r": 337, "c": 461, "f": 405}
    assert sum(c.instance_count for c in classes) == 1_270_141
    assert len({c.name for c in classes}) == len({c.synset for c in classes}) == 1203
    with_id = classes_by_wnid()
    assert len(with_id) == 997
    assert Counter(c.frequency for c in with_id.values()) == {"r": 277, "c": 390, "f": 330}
    assert with_id["n02682922"].name == "aerosol_can" and all(wnid_in(w) == w for w in with_id)


def test_categories_are_lvis_own():
    facts = json.loads(require_fixture("data/lvis_v1_facts/lvis_v1_train_cat_info.json").read_text())
    assert [c.to_json() for c in lvis_v1_classes()] == sorted(facts, key=lambda c: c["id"])


@pytest.mark.parametrize(
    ("name", "wnid"),
    [
        ("n02682922", "n02682922"),
        ("n02682922_aerosol", "n02682922"),
        ("n02682922.tar", "n02682922"),
        ("n026829221", ""),
        ("n0268292", ""),
        ("banana", ""),
        ("n02682922a", ""),
    ],
)
def test_wordnet_ids_are_known_by_their_form(name, wnid):
    assert wnid_in(name) == wnid
