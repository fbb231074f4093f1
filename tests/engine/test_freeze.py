"""Freezing by name, down to what a resumed and an averaged run do with it."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from engine.freeze import freeze, hold_frozen_statistics
from engine.optimizer import optimizer_state
from engine.train_epoch import train_one_epoch
from tests.engine.toys import ToyDetector, ToyLoader, make_toy, toy_images
from util.errors import UserError


class Layers(nn.Module):
    """backbone.body: a linear layer and a batch norm; encoder and `tied` share their weight; encoder_norm."""

    def __init__(self) -> None:
        super().__init__()
        body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.backbone = nn.ModuleDict({"body": body})
        self.encoder = nn.Linear(4, 4)
        self.encoder_norm = nn.LayerNorm(4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.encoder.weight


def frozen(*names: str) -> set[str]:
    model = Layers()
    freeze(model, names)
    parameters = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in parameters if not parameter.requires_grad}


def test_names_choose_modules_parameters_and_patterns():
    body = {f"backbone.body.{layer}.{kind}" for layer in (0, 1) for kind in ("weight", "bias")}
    assert frozen("backbone") == frozen("backbone.body") == frozen("backbone.") == body
    encoder = {"encoder.weight", "encoder.bias", "tied.weight"}
    assert frozen("encoder") == encoder, "encoder_norm is another module, and a tied weight one tensor"
    assert frozen("tied.weight") == {"encoder.weight", "tied.weight"}
    assert frozen("backbone.body.[1-3].*", "encoder_norm.bias") == {
        *("backbone.body.1.weight", "backbone.body.1.bias", "encoder_norm.bias")
    }
    assert frozen("encoder*") == {*encoder, "encoder_norm.weight", "encoder_norm.bias"}
    assert frozen() == set()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["encodr"], "'encodr' or lies in it. Did you mean 'encoder'?"),
        (["backbone", "backbone.bodi"], "Did you mean 'backbone.body'?"),
        (["teacher.*"], "The model has backbone, encoder, encoder_norm, tied"),
        (["*"], r"freeze=['*'] leaves no parameter to train"),
    ],
)
def test_a_name_that_fits_nothing_is_one_line(names, message):
    with pytest.raises(UserError) as caught:
        freeze(Layers(), names)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_trains_is_logged(caplog):
    caplog.set_level(logging.INFO, logger="engine")
    freeze(Layers(), ["backbone"])
    assert "5 of 9 parameter tensors train" in caplog.text


@pytest.mark.parametrize("names", [("backbone",), ("backbone", "norm")])
def test_frozen_weights_and_statistics_stay_as_they_are(names):
    model = ToyDetector(norm=True)
    toy = make_toy(ToyLoader(toy_images(), 2), model=model, freeze=names)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)
    same = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    ours = {name for name in before if name.split(".")[0] in names}
    assert same == ours, "batch norm's statistics stay exactly where its weights are frozen"
    average = toy.state.ema.module.state_dict()
    assert all(torch.equal(average[name], before[name]) for name in ours)
    assert not set(optimizer_state(toy.state.optimizer, model)) & ours


def test_dropout_stays_on_and_other_norms_train():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(), nn.BatchNorm1d(2))
    freeze(model, ["0", "1"])
    model.train()
    hold_frozen_statistics(model)
    assert [module.training for module in model] == [True, False, True, True]


def test_a_run_resumes_with_other_parts_frozen():
    """Thawed parameters start without optimizer state; newly frozen ones leave theirs behind."""
    first = make_toy(ToyLoader(toy_images(), 2), freeze=["backbone"])
    train_one_epoch(first.task, first.state, first.loader, first.settings)
    checkpoint = first.state.checkpoint({"config": {"freeze": ["backbone"]}})
    second = make_toy(ToyLoader(toy_images(), 2), freeze=["head"])
    with pytest.raises(UserError, match=r"optimizer state of 'backbone\.weight', .* is missing"):
        second.state.restore(replace(checkpoint, config={}))
    second.state.restore(checkpoint)
    before = {name: value.clone() for name, value in second.state.model.state_dict().items()}
    train_one_epoch(second.task, second.state, second.loader, second.settings)
    moved = {n for n, p in second.state.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"backbone.weight", "backbone.bias", "hint"}
