"""Refactors reproduce the stored losses. To store new ones: `python -m tests.golden.series --write`."""

import inspect
import json
from copy import deepcopy

import pytest
import torch

from models.dino.layers import inverse_sigmoid
from tests.golden import series


@pytest.fixture(scope="module")
def stored() -> list[dict[str, float]]:
    return json.loads(series.FILE.read_text())


def test_ten_steps_reproduce_the_stored_losses(stored):
    gap, where = series.differences(series.train(), stored)[0]
    assert gap <= series.TOLERANCE, (
        f"{where}: relative difference {gap:.1e}. If the change is meant to alter numerics, say why in the "
        f"commit and store the new series: python -m tests.golden.series --write"
    )


def test_threads_do_not_matter(stored):
    threads = torch.get_num_threads()
    torch.set_num_threads(3 if threads != 3 else 2)
    try:
        assert series.differences(series.train(), stored)[0][0] <= series.TOLERANCE
    finally:
        torch.set_num_threads(threads)


def test_a_small_change_of_the_computation_is_seen(stored, monkeypatch):
    """A clamp of 1.01e-3 in place of 1e-3: nobody would find it in a loss curve."""
    # Under the checks of annotations the function is wrapped.
    monkeypatch.setattr(inspect.unwrap(inverse_sigmoid), "__defaults__", (1.01e-3,))
    assert 10 * series.TOLERANCE < series.differences(series.train(), stored)[0][0] < 1e-3


def test_the_series_is_of_everything_that_training_computes(stored):
    assert len(stored) == series.STEPS
    for step in stored:
        assert {"total", "grad_norm", "loss_ce", "loss_bbox_0", "loss_giou_interm"} <= step.keys()
        assert {"loss_distill", "loss_distill_0", "loss_distill_dn", "loss_ce_dn_0"} <= step.keys()
        assert all(torch.isfinite(torch.tensor(value)) for value in step.values())
    assert stored[-1]["total"] < stored[0]["total"]


def test_what_differs_is_found(stored):
    assert series.differences(stored, stored)[0][0] == 0
    changed = deepcopy(stored)
    changed[4]["loss_ce"] *= 1 + 3e-6
    gap, where = series.differences(changed, stored)[0]
    assert gap == pytest.approx(3e-6, rel=1e-3) and where.startswith("step 4 loss_ce")
    del changed[4]["loss_ce"]
    assert series.differences(changed, stored)[0][0] == float("inf")
    assert series.differences(stored[:-1], stored)[0] == (float("inf"), "number of steps")
    changed[4]["loss_ce"] = float("nan")
    assert series.differences(changed, stored)[0][0] == float("inf")
