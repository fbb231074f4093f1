import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.pretrained import load_pretrained
from util.checkpoint import Checkpoint
from util.errors import UserError


class Net(nn.Module):
    def __init__(self, classes: int, fill: float, width: int = 2) -> None:
        super().__init__()
        self.body = nn.Linear(2, width)
        self.classifier = nn.Linear(width, classes)
        self.text = nn.Module()
        self.text.inner = nn.Module()
        self.text.inner.text = nn.Module()
        self.text.inner.text.register_buffer("raw", torch.full((classes, 2), fill))
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters()):
                parameter.copy_(fill + index + torch.arange(parameter.numel()).view(parameter.shape))


@pytest.fixture(autouse=True)
def logged(caplog):
    caplog.set_level(logging.INFO, logger="engine")


def load(source: Net, target: Net, old: list[str], new: list[str], **options) -> None:
    checkpoint = Checkpoint(path=Path("p.pth"), model=source.state_dict(), class_names=old)
    load_pretrained(target, checkpoint, new, **options)


def skipped(caplog) -> list[str]:
    return [m for m in caplog.messages if m.startswith("skipped")]


def test_equal_classes_take_everything_but_the_vocabulary(caplog):
    source, target = Net(2, 100.0), Net(2, 0.0)
    load(source, target, ["a", "b"], ["a", "b"])
    assert torch.equal(target.classifier.weight, source.classifier.weight)
    assert torch.equal(target.body.bias, source.body.bias)
    assert target.text.inner.text.raw.unique().tolist() == [0.0]
    assert skipped(caplog) == ["skipped text.inner.text.raw: kept: this run's own vocabulary"]
    assert "matched by class name" not in caplog.text


def test_rows_of_shared_classes_move_to_their_new_places(caplog):
    source, target = Net(3, 100.0), Net(2, 0.0)
    own = target.classifier.weight.clone()
    load(source, target, ["cat", "dog", "owl"], ["owl", "cow"])
    assert torch.equal(target.classifier.weight[0], source.classifier.weight[2])
    assert torch.equal(target.classifier.weight[1], own[1])
    assert target.classifier.bias[0] == source.classifier.bias[2]
    assert torch.equal(target.body.weight, source.body.weight)
    assert "matched by class name: the rows of classifier.weight, classifier.bias" in caplog.text


def test_as_many_but_other_classes_are_not_taken_for_the_same():
    source, target = Net(2, 100.0), Net(2, 0.0)
    own = target.classifier.weight.clone()
    load(source, target, ["cat", "dog"], ["dog", "cow"])
    assert torch.equal(target.classifier.weight[0], source.classifier.weight[1])
    assert torch.equal(target.classifier.weight[1], own[1])


def test_ignored_words_and_other_shapes_are_left_out_and_logged(caplog):
    source, target = Net(2, 100.0, width=3), Net(2, 0.0)
    del source.classifier
    source.extra = nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"p.pth: not one tensor fits"):
        load(source, target, ["a", "b"], ["a", "b"])
    source.body = nn.Linear(2, 2)
    own = target.body.bias.clone()
    load(source, target, ["a", "b"], ["a", "b"], ignored=("bias",))
    assert "skipped body.bias: kept as initialised (--finetune_ignore bias)" in caplog.text
    assert torch.equal(target.body.bias, own)
    assert torch.equal(target.body.weight, source.body.weight)
    assert "skipped extra.weight: not in this model" in caplog.text
    assert "not in the checkpoint, kept as initialised: classifier.weight, classifier.bias" in caplog.text


def test_another_shape_is_skipped_with_both_shapes(caplog):
    source, target = Net(2, 100.0, width=3), Net(2, 0.0)
    source.body.bias = nn.Parameter(torch.ones(2))
    load(source, target, ["a", "b"], ["a", "b"])
    shapes = "(3, 2) in the checkpoint, (2, 2) in this model"
    assert f"skipped body.weight: its shape is {shapes}" in skipped(caplog)
    assert torch.equal(target.body.bias, source.body.bias)
    assert torch.equal(target.classifier.bias, source.classifier.bias)


def test_ignoring_wins_over_class_rows():
    source, target = Net(2, 100.0), Net(2, 0.0)
    own = target.classifier.weight.clone()
    load(source, target, ["cat", "dog"], ["dog", "cow"], ignored=("classifier",))
    assert torch.equal(target.classifier.weight, own)
