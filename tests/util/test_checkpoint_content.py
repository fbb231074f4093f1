"""Entries of checkpoints: what is of another type, shape or range, or contradicts another, is one line."""

from dataclasses import fields
from typing import Any

import pytest
import torch

from engine.random_state import random_state
from tests.checkpoint_mutations import doubled, nested
from util.checkpoint import FORMAT, Checkpoint
from util.errors import UserError
from util.nonfinite import first_nonfinite

WEIGHT = torch.ones(3, 2)
LOSSES = {"sums": {"total": 3.5}, "counts": {"total": 2}}


def whole() -> dict[str, Any]:
    """A checkpoint with one parameter after 12 steps, 5 an epoch."""
    return {
        "format": FORMAT,
        "model": {"w": WEIGHT, "seen": torch.tensor(7)},
        "class_names": ["cat", "dog"],
        "image_counts": [5, 0],
        "frequencies": ["r", ""],
        "config": {"lr": 0.1, "freeze": []},
        "run": {"data_path": "d", "dataset_file": "lvis", "seed": 1, "fix_size": False},
        "note": "",
        "epoch": 2,
        "iteration": 2,
        "evaluated": True,
        "progress": {"seconds": 1.5, "epoch": LOSSES, "windows": [LOSSES, {"sums": {}, "counts": {}}]},
        "best_ap": 0.25,
        "early_stopping": {"reference": 0.25, "stale": 0},
        "optimizer": {"w": {"step": torch.tensor(12.0), "exp_avg": WEIGHT * 0, "exp_avg_sq": WEIGHT}},
        "scheduler": {"position": 12, "steps_per_epoch": 5},
        "scaler": {},
        "ema": {"model": {"w": WEIGHT, "seen": torch.tensor(7)}, "updates": 12},
        "rng": [random_state()],
    }


def line(content: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        Checkpoint.from_content(content, "c.pth")
    message = str(caught.value)
    assert message.startswith("c.pth: damaged checkpoint (") and "\n" not in message and len(message) < 300
    return message


def test_a_whole_one_is_taken():
    found = Checkpoint.from_content(whole(), "c.pth")
    assert found.epoch == 2 and found.optimizer is not None
    older = {
        k: v for k, v in whole().items() if k not in ("iteration", "evaluated", "progress", "image_counts")
    }
    older["scheduler"] = {"position": 10, "steps_per_epoch": 5}
    assert Checkpoint.from_content(older, "c.pth").iteration == 0
    several = whole() | {"run": {"data_path": ["d", "e"]}}
    assert Checkpoint.from_content(several, "c.pth").run["data_path"] == ["d", "e"]


def test_every_entry_is_checked():
    assert set(whole()) - {"format"} == {f.name for f in fields(Checkpoint)} - {"path"}


RNG = random_state()
STATE = whole()["optimizer"]["w"]


@pytest.mark.parametrize(
    ("entry", "value", "words"),
    [
        ("model", {1: WEIGHT}, "'model' has a name of type int"),
        ("model", {"w": [1.0]}, "'model' holds a list in place of the tensor 'w'"),
        ("model", {"w": WEIGHT.to_sparse()}, "'model' holds 'w' in a form that no weight has"),
        ("model", {"w": torch.ones(1).expand(10**6, 10**6)}, "claims more values for 'w' than the file has"),
        ("model", {"w": WEIGHT / 0}, "'model' holds values that are not finite, in 'w'"),
        ("class_names", ["cat", 3], "'class_names' has the entry 3, which is no name"),
        ("class_names", ["cat", "dog", "cow"], "'image_counts' has 2 entries for 3 classes"),
        ("image_counts", [5, -1], "'image_counts' has the entry -1"),
        ("frequencies", ["r", "x"], "'frequencies' has the entry 'x'"),
        ("config", {"lr": torch.ones(1)}, "'config' holds a Tensor, which is not plain data"),
        ("config", {1: 2}, "'config' has a key that is no text"),
        ("config", {"lr": 10**5000}, "'config' has a number beyond 64 bits"),
        ("config", {"lr": nested(2000)}, "'config' holds too many values, or too deeply nested ones"),
        ("config", {"lr": doubled(24)}, "'config' holds too many values, or too deeply nested ones"),
        ("config", {"clip_pretrained": "a\0b"}, "'config' has text that is no text"),
        ("run", {"seed": "1"}, "'run' has 'seed' of type str"),
        ("run", {"data_path": 7}, "'run' has 'data_path' of type int"),
        ("run", {"data_path": ["a"]}, "'run' has 'data_path' of type list"),
        ("run", {"data_path": ["a", 7]}, "'run' has 'data_path' of type list"),
        ("epoch", -3, "'epoch' is -3"),
        ("epoch", True, "'epoch' is of type bool"),
        ("epoch", 10**9, "'scheduler' stands at step 12 with 5 steps an epoch, its 'epoch' is 1000000000"),
        ("iteration", 1.5, "'iteration' is of type float"),
        ("iteration", 0, "'scheduler' stands at step 12"),
        ("evaluated", 1, "'evaluated' is of type int"),
        ("progress", {"seconds": 1.0}, "'progress' has no 'windows'"),
        ("progress", {"seconds": 1.0, "epoch": {"sums": {}}, "windows": []}, "'progress' has no sums and"),
        (
            "progress",
            {"seconds": 1.0, "epoch": {"sums": {"a": 1.0}, "counts": {"a": 0}}, "windows": []},
            "'progress' has a count that is none",
        ),
        ("best_ap", float("nan"), "'best_ap' is nan"),
        ("best_ap", 37.9, "'best_ap' is 37.9, not within -1..1"),
        ("early_stopping", {"stale": -1}, "'early_stopping' counts something other than evaluations"),
        ("optimizer", {"w": [1]}, "'optimizer' does not map names to states"),
        ("optimizer", {"w": {"step": 1.0, "exp_avg": WEIGHT}}, "'optimizer' lacks exp_avg_sq of 'w'"),
        ("optimizer", {"v": STATE}, "'optimizer' has 'v', which is no tensor of the model"),
        ("optimizer", {"w": {**STATE, "exp_avg": WEIGHT[:2]}}, "'exp_avg' of 'w' of shape"),
        (
            "optimizer",
            {"w": {**STATE, "exp_avg": WEIGHT / 0}},
            "'optimizer' holds values that are not finite",
        ),
        ("optimizer", {"w": {**STATE, "step": torch.tensor(-1.0)}}, "'optimizer' counts -1 steps for 'w'"),
        ("scheduler", {}, "'scheduler' has no 'position'"),
        ("scheduler", {"position": 0, "steps_per_epoch": 0}, "'scheduler' has no 'steps_per_epoch'"),
        ("scaler", {"scale": 0.0}, "'scaler' has no 'scale', a positive number"),
        ("ema", {}, "'ema' has no 'model'"),
        ("ema", {"model": {"w": WEIGHT}, "updates": 3}, "'ema' lacks 'seen', which its 'model' has"),
        (
            "ema",
            {"model": whole()["model"] | {"w": WEIGHT[:1]}, "updates": 3},
            "'ema' has 'w' in another shape",
        ),
        ("ema", {"model": whole()["model"] | {"w": WEIGHT * torch.nan}, "updates": 3}, "not finite, in 'w'"),
        ("ema", {"model": whole()["model"]}, "'ema' has no 'updates'"),
        ("rng", [{}], "'rng' is no state of random numbers for rank 0"),
        ("rng", [RNG, RNG | {"torch": RNG["torch"][:9]}], "for rank 1"),
        ("rng", [RNG | {"numpy": (*RNG["numpy"][:2], 10**6, 0, 0.0)}], "for rank 0"),
        ("rng", [RNG | {"cuda": 3}], "for rank 0"),
    ],
)
def test_an_entry_that_cannot_be_is_named(entry, value, words):
    assert words in line(whole() | {entry: value})


def test_a_list_that_holds_itself_ends():
    circle: list = []
    circle.append(circle)
    assert "too many values" in line(whole() | {"config": {"x": circle}})


@pytest.mark.parametrize("entry", [name for name in whole() if name not in ("format", "optimizer")])
def test_training_state_lacks_no_entry_in_silence(entry):
    content = whole()
    del content[entry]
    if entry in ("iteration", "evaluated", "progress", "early_stopping", "image_counts", "frequencies"):
        # Later than the first revision; `iteration` contradicts the schedule's step here.
        content["scheduler"] = {"position": 12 if entry != "iteration" else 10, "steps_per_epoch": 5}
        Checkpoint.from_content(content, "c.pth")
    else:
        assert f"it has no {entry!r}" in line(content)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_first_tensor_that_is_not_finite_is_found(dtype):
    largest = torch.full((40,), torch.finfo(dtype).max, dtype=dtype)
    state = {"a": torch.tensor(3), "b": largest, "c": -largest}
    assert first_nonfinite(state) is None, "large is not infinite"
    assert first_nonfinite({}) is None
    for value in (torch.inf, -torch.inf, torch.nan):
        broken = largest.clone()
        broken[17] = value
        assert first_nonfinite({**state, "d": broken, "e": broken}) == "d"
