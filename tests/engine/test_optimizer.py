import copy

import pytest
import torch
from torch import nn

from engine.optimizer import (
    GroupRules,
    build_adamw,
    load_optimizer_state,
    optimizer_state,
    parameter_groups,
)
from engine.sharded_adamw import share_out
from util.errors import UserError


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"stem": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
        self.encoder = nn.ModuleDict(
            {"sampling_offsets": nn.Linear(2, 2), "norm": nn.LayerNorm(2), "ffn": nn.Linear(2, 2)}
        )
        self.reference_points = nn.Linear(2, 2)
        self.head = nn.Linear(2, 2)
        self.tied = self.head
        self.backbone.stem.bias.requires_grad_(False)


def rules(kind: str, **changes) -> GroupRules:
    return GroupRules(kind=kind, lr=1.0, lr_backbone=0.25, weight_decay=0.5, **changes)


def numbers(kind: str, **changes) -> dict[str, tuple[float, float]]:
    """Parameter name -> (lr, weight decay) as the groups say; asserts that each stands in one group only."""
    model = Named()
    groups = parameter_groups(model.named_parameters(), rules(kind, **changes))
    names = {id(p): n for n, p in model.named_parameters()}
    found = [(names[id(p)], (g["lr"], g["weight_decay"])) for g in groups for p in g["params"]]
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert sorted(n for n, _ in found) == sorted(trainable)
    pairs = [(g["lr"], g["weight_decay"]) for g in groups]
    assert len(pairs) == len(set(pairs))
    return dict(found)


def test_default_slows_the_backbone_only():
    found = numbers("default")
    assert found["backbone.stem.weight"] == found["backbone.norm.bias"] == (0.25, 0.5)
    others = {value for name, value in found.items() if "backbone" not in name}
    assert others == {(1.0, 0.5)}
    assert "backbone.stem.bias" not in found


def test_ddetr_in_mmdet_also_slows_the_linear_projections():
    found = numbers("ddetr_in_mmdet", backbone_names=("backbone.",))
    assert found["encoder.sampling_offsets.weight"] == found["reference_points.bias"] == (0.1, 0.5)
    assert found["backbone.stem.weight"] == (0.25, 0.5)
    assert found["head.weight"] == (1.0, 0.5)


def test_large_wd_takes_weight_decay_off_norms_and_biases():
    found = numbers("large_wd")
    assert found["backbone.norm.weight"] == (0.25, 0.0)
    assert found["backbone.stem.weight"] == (0.25, 0.5)
    assert found["head.bias"] == found["encoder.norm.weight"] == (1.0, 0.0)
    assert found["head.weight"] == (1.0, 0.5)


@pytest.mark.parametrize("kind", ["default", "ddetr_in_mmdet", "large_wd"])
def test_offsets_multiplier_works_in_every_kind(kind):
    plain, slowed = numbers(kind), numbers(kind, offsets_mult=0.5)
    for name, (lr, decay) in plain.items():
        expected = lr * 0.5 if "sampling_offsets" in name else lr
        assert slowed[name] == (expected, decay)


def test_equal_numbers_share_a_group():
    groups = parameter_groups(Named().named_parameters(), GroupRules("default", 1.0, 1.0, 0.1))
    assert len(groups) == 1


def test_unknown_kind_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'large_wd'"):
        rules("larg_wd")


def test_nothing_to_train_is_an_error():
    with pytest.raises(UserError, match="no trainable parameter"):
        parameter_groups(nn.Linear(1, 1).requires_grad_(False).named_parameters(), rules("default"))


def train_once(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    sum(p.square().sum() + p.sum() for p in model.parameters() if p.requires_grad).backward()
    optimizer.step()


def test_the_state_survives_a_change_of_groups():
    torch.manual_seed(0)
    first = Named()
    optimizer = build_adamw(parameter_groups(first.named_parameters(), rules("default")), (0.9, 0.999))
    train_once(first, optimizer)
    saved = optimizer_state(optimizer, first)
    second = Named()
    second.load_state_dict(first.state_dict())
    other = build_adamw(parameter_groups(second.named_parameters(), rules("large_wd")), (0.9, 0.999))
    load_optimizer_state(other, second, saved)
    restored = optimizer_state(other, second)
    assert saved.keys() == restored.keys()
    for name, state in saved.items():
        for key, value in state.items():
            assert torch.equal(value, restored[name][key]), (name, key)
    assert sorted({g["weight_decay"] for g in other.param_groups}) == [0.0, 0.5]


def test_a_state_of_another_shape_is_named():
    model = nn.Linear(2, 2)
    optimizer = build_adamw(parameter_groups(model.named_parameters(), rules("default")), (0.9, 0.999))
    train_once(model, optimizer)
    saved = optimizer_state(optimizer, model)
    saved["weight"]["exp_avg"] = torch.zeros(3, 3)
    with pytest.raises(UserError, match=r"exp_avg of 'weight' is \(3, 3\) there and \(2, 2\) here"):
        load_optimizer_state(optimizer, model, saved)


def test_a_state_takes_the_order_of_memory_of_its_parameter():
    """The fused form goes through memory: a run with channels last may go on without."""
    weights = torch.randn((4, 3, 5, 5), generator=torch.Generator().manual_seed(0))

    def make(layout: torch.memory_format) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Conv2d(3, 4, 5, bias=False)
        model.weight.data.copy_(weights)
        model.to(memory_format=layout)
        return model, build_adamw([{"params": list(model.parameters())}], (0.9, 0.999))

    first, optimizer = make(torch.channels_last)
    second, other = make(torch.contiguous_format)
    train_once(first, optimizer)
    second.load_state_dict(first.state_dict())
    load_optimizer_state(other, second, copy.deepcopy(optimizer_state(optimizer, first)))
    train_once(first, optimizer)
    train_once(second, other)
    assert torch.equal(first.weight, second.weight)


def test_parameters_are_shared_out_evenly():
    sizes = [7, 1, 1, 5, 4, 2]
    owners = share_out(sizes, 3)
    assert sorted(sum(n for n, o in zip(sizes, owners, strict=True) if o == rank) for rank in range(3)) == [
        6,
        7,
        7,
    ]
    assert share_out([3], 2) == [0]
