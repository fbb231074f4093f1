import logging

import pytest
import torch
from torch import nn

from engine.pretrained import TransferRules, load_pretrained
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


def load(source: Net, target: Net, old: list[str], new: list[str], **rules):
    content = {"model": source.state_dict(), "class_names": old}
    return load_pretrained(target, content, new, TransferRules(**rules), "p.pth")


def test_equal_classes_take_everything_but_the_vocabulary():
    source, target = Net(2, 100.0), Net(2, 0.0)
    transfer = load(source, target, ["a", "b"], ["a", "b"])
    assert torch.equal(target.classifier.weight, source.classifier.weight)
    assert torch.equal(target.body.bias, source.body.bias)
    assert target.text.inner.text.raw.unique().tolist() == [0.0]
    assert list(transfer.skipped) == ["text.inner.text.raw"]
    assert not transfer.by_class


def test_rows_of_shared_classes_move_to_their_new_places():
    source, target = Net(3, 100.0), Net(2, 0.0)
    own = target.classifier.weight.clone()
    transfer = load(source, target, ["cat", "dog", "owl"], ["owl", "cow"])
    assert torch.equal(target.classifier.weight[0], source.classifier.weight[2])
    assert torch.equal(target.classifier.weight[1], own[1])
    assert target.classifier.bias[0] == source.classifier.bias[2]
    assert torch.equal(target.body.weight, source.body.weight)
    assert set(transfer.by_class) == {"classifier.weight", "classifier.bias"}


def test_as_many_but_other_classes_are_not_taken_for_the_same():
    source, target = Net(2, 100.0), Net(2, 0.0)
    own = target.classifier.weight.clone()
    load(source, target, ["cat", "dog"], ["dog", "cow"])
    assert torch.equal(target.classifier.weight[0], source.classifier.weight[1])
    assert torch.equal(target.classifier.weight[1], own[1])


def test_ignored_words_and_other_shapes_are_left_out_and_logged(caplog):
    caplog.set_level(logging.INFO, logger="engine")
    source, target = Net(2, 100.0, width=3), Net(2, 0.0)
    del source.classifier
    source.extra = nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"p.pth: not one tensor fits"):
        load(source, target, ["a", "b"], ["a", "b"])
    source.body = nn.Linear(2, 2)
    own = target.body.bias.clone()
    transfer = load(source, target, ["a", "b"], ["a", "b"], ignored=("bias",))
    assert transfer.skipped["body.bias"] == "kept as initialised (--finetune_ignore bias)"
    assert transfer.skipped["extra.weight"] == "not in this model"
    assert torch.equal(target.body.bias, own)
    assert torch.equal(target.body.weight, source.body.weight)
    assert "skipped extra.weight: not in this model" in caplog.text
    assert "not in the checkpoint, as initialised: classifier.weight, classifier.bias" in caplog.text


def test_another_shape_is_skipped_with_both_shapes():
    source, target = Net(2, 100.0, width=3), Net(2, 0.0)
    source.body.bias = nn.Parameter(torch.ones(2))
    transfer = load(source, target, ["a", "b"], ["a", "b"])
    assert transfer.skipped["body.weight"] == "shape (3, 2) there, (2, 2) here"
    assert transfer.loaded == ("body.bias", "classifier.bias")


def test_ignoring_wins_over_class_rows():
    source, target = Net(2, 100.0), Net(2, 0.0)
    own = target.classifier.weight.clone()
    load(source, target, ["cat", "dog"], ["dog", "cow"], ignored=("classifier",))
    assert torch.equal(target.classifier.weight, own)
