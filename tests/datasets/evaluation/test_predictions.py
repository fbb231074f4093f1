"""Entries of the results format: every key is read as its declared kind, or the entry is named."""

import numpy as np
import pytest

from datasets.evaluation.predictions import Predictions
from util.errors import UserError

GOOD = {"image_id": 3, "category_id": 2, "bbox": [10.0, 8.0, 20.0, 16.0], "score": 0.25}


def test_text_and_whole_floats_are_read_as_the_numbers_they_are():
    forms = [
        GOOD,
        {"image_id": "3", "category_id": "2", "bbox": ["10", "8.0", "20", "16"], "score": "0.25"},
        {"image_id": 3.0, "category_id": 2.0, "bbox": [10, 8, 20, 16], "score": 0.25},
    ]
    read = Predictions.from_results(forms)
    assert read.to_results() == [GOOD] * 3 and read.image_ids.dtype == np.int64


def test_null_is_not_a_number():
    read = Predictions.from_results([GOOD | {"score": None, "bbox": [None, 1, 2, 3]}])
    assert np.isnan(read.scores).all() and np.isnan(read.boxes).sum() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2]}, r"its `bbox` is \[1, 2\]: expected `array`"),
        ({"bbox": [1, 2, 3, True]}, r"its `bbox` is .*: expected `float"),
        ({"image_id": True}, "its `image_id` is True: expected `int`"),
        ({"image_id": 1.5}, "its `image_id` is 1.5: expected `int`"),
        ({"image_id": None}, "its `image_id` is None: expected `int`"),
        ({"image_id": "\ud800"}, r"its `image_id` is '\\ud800': holds half of a character"),
        ({"category_id": 2**63}, "its `category_id` is 9223372036854775808: expected `int` <="),
        ({"score": "high"}, "its `score` is 'high': expected `float"),
        ({"score": True}, "its `score` is True: expected `float"),
    ],
)
def test_an_entry_of_another_form_is_named_with_its_number_key_and_value(change, message):
    with pytest.raises(UserError, match=rf"prediction number 12 \(.*\): {message}") as caught:
        Predictions.from_results([GOOD, GOOD | change], first=11)
    assert "\n" not in str(caught.value)
    missing = {key: value for key, value in GOOD.items() if key not in change}
    with pytest.raises(UserError, match=rf"number 0 .*missing required field `{next(iter(change))}`"):
        Predictions.from_results([missing])
