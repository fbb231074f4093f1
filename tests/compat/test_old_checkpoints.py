"""Checkpoints of earlier revisions evaluate to the same metrics and resume to the same losses.

Each folder beside this file is named after the revision that wrote its checkpoint; README.md says how.
"""

import copy
import json
import lzma
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from models.dino.federated import ClassSample, FederatedClasses
from tests.compat import outcome
from tests.compat.data import write_clip, write_data

# Their loaders drew a number from the model's generator for every pass over the data, and their federated
# classes came of `torch.multinomial`: the same distribution, other draws.
OTHER_DRAWS = ("18081fd",)
FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob(f"*/{outcome.STORED}"))


def loader_that_draws(*arguments, generator: torch.Generator, **named) -> DataLoader:
    """Without a generator of its own."""
    return DataLoader(*arguments, **named)


def drawn_by_multinomial(
    self: FederatedClasses, labels: torch.Tensor, most: int, candidates: None
) -> ClassSample:
    """One set after the other."""
    rows = []
    for row in labels:
        present = torch.zeros_like(self.weights, dtype=torch.bool)
        present[row] = True
        candidates = self.weights.masked_fill(present, 0)
        missing = min(self.number - int(present.sum()), int((candidates > 0).sum()))
        drawn = present.clone()
        if missing > 0:
            drawn[torch.multinomial(candidates, missing)] = True
        rows.append(drawn)
    drawn = torch.stack(rows)
    return ClassSample(torch.arange(drawn.shape[1]).expand_as(drawn), drawn)


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def revision(request) -> Path:
    """A folder with a stored checkpoint."""
    return request.param


@pytest.fixture(scope="module")
def stored(revision) -> dict:
    return json.loads((revision / outcome.NUMBERS).read_text())


@pytest.fixture(scope="module")
def found(revision, tmp_path_factory) -> dict:
    """What this revision makes of the stored checkpoint."""
    folder = tmp_path_factory.mktemp("compat")
    checkpoint = folder / outcome.CHECKPOINT
    checkpoint.write_bytes(lzma.decompress((revision / outcome.STORED).read_bytes()))
    data, clip = write_data(folder / "data", **outcome.SPLITS), write_clip(folder / "clip")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        if revision.name in OTHER_DRAWS:
            patch.setattr("datasets.loader.DataLoader", loader_that_draws)
            patch.setattr(FederatedClasses, "forward", drawn_by_multinomial)
        try:
            return outcome.follow_up(checkpoint, data, clip, folder)
        finally:
            torch.set_num_threads(threads)


def test_there_are_stored_checkpoints():
    assert FOLDERS


def test_evaluates_to_the_same_metrics(found, stored):
    assert found["eval"] == stored["eval"]
    assert float(stored["eval"]["APr"]) > 0


def test_resumes_to_the_same_losses(found, stored):
    lines = outcome.loss_differences(found["log"], stored["log"])
    assert not lines, "\n".join(lines[:10])


def test_resumes_at_the_same_step_and_learning_rate(found, stored):
    for key in ("step", "lr"):
        values = [[entry[key] for entry in log if key in entry] for log in (found["log"], stored["log"])]
        assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert found["optimizer_steps"] == stored["optimizer_steps"]


def test_resumes_to_the_same_weights(found, stored):
    lines = outcome.weight_differences(found["weights"], stored["weights"])
    assert not lines, "\n".join(lines[:10])


def test_resumes_to_the_same_average(found, stored):
    """The decay depends on the number of updates, so their count is resumed too."""
    lines = outcome.weight_differences(found["average"], stored["average"])
    assert not lines, "\n".join(lines[:10])
    assert outcome.weight_differences(found["weights"], stored["average"])


def test_the_resumed_run_ends_with_the_same_metrics(found, stored):
    assert found["resumed_eval"] == stored["resumed_eval"]
    assert found["best_ap"] == pytest.approx(stored["best_ap"], abs=1e-6)


def test_differences_are_found(stored):
    log, weights = copy.deepcopy(stored["log"]), copy.deepcopy(stored["average"])
    assert not outcome.loss_differences(log, stored["log"])
    assert not outcome.weight_differences(weights, stored["average"])
    log[3]["losses"]["loss_giou"] *= 1.0001
    log[4]["total"] = None
    weights["head.box_head.layers.0.weight"][0] *= 1.001
    del weights["decoder.norm.bias"]
    lines = outcome.loss_differences(log[:-1], stored["log"])
    assert [line.split(":")[0] for line in lines] == [
        f"{len(log) - 1} log entries, stored {len(log)}",
        "log entry 3, loss_giou",
        "log entry 4, total",
    ]
    names = [line.split(":")[0] for line in outcome.weight_differences(weights, stored["average"])]
    assert names == ["decoder.norm.bias", "head.box_head.layers.0.weight"]
