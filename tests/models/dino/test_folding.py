"""Folded batch norms: the same maps and gradients, fewer operators, less memory, untouched names."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from benchmarks.operators import Operators
from models.dino.backbone import Backbone, make_backbone
from models.dino.folding import call_folded, make_foldable

SMALL = {"channels": [8, 16, 24, 32], "stem_width": 8}


def frozen_backbone(name: str = "resnet10t", dtype: torch.dtype = torch.float64, **arguments) -> Backbone:
    """As pretrained ones are, with norms that do something."""
    torch.manual_seed(0)
    backbone = make_backbone(name, (1, 2, 3), "default", arguments=arguments or SMALL, load=False)
    for norm in norms(backbone):
        for buffer in norm.buffers():
            nn.init.uniform_(buffer, 0.5, 1.5)
    return backbone.to(dtype)


def norms(module: nn.Module) -> list[FrozenBatchNorm2d]:
    return [m for m in module.modules() if isinstance(m, FrozenBatchNorm2d)]


def run(backbone: Backbone, folded: bool) -> tuple[list[torch.Tensor], dict[str, torch.Tensor | None]]:
    x = torch.rand((2, 3, 64, 96), generator=torch.Generator().manual_seed(1)).double()
    maps = backbone(x) if folded else backbone.body(x)
    sum(m.square().mean() for m in maps).backward()
    return maps, {n: p.grad for n, p in backbone.named_parameters()}


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_same_maps_and_gradients(channels_last):
    backbone = frozen_backbone()
    if channels_last:
        backbone.to(memory_format=torch.channels_last)
    twin = copy.deepcopy(backbone)
    assert len(backbone.folds) == len(norms(backbone))
    (ours, gradients), (theirs, expected) = run(backbone, True), run(twin, False)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert (
            (gradient is None) == (expected[name] is None) == name.startswith(("body.conv1", "body.layer1"))
        )
        if gradient is not None:
            torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-12, msg=name)


def test_other_numbers_of_the_norms_count_at_once():
    backbone = frozen_backbone()
    before = [m.detach().clone() for m in run(backbone, True)[0]]
    norms(backbone)[-1].running_mean += 1
    after, plain = run(backbone, True)[0], run(backbone, False)[0]
    assert not torch.equal(before[-1], after[-1])
    torch.testing.assert_close(after[-1], plain[-1], rtol=1e-9, atol=1e-9)


def test_names_stay_and_a_copy_has_norms_of_its_own():
    backbone = frozen_backbone()
    plain = make_backbone("resnet10t", (1, 2, 3), "none", arguments=SMALL)
    kept = {name for name in plain.state_dict() if "num_batches_tracked" not in name}
    assert backbone.state_dict().keys() == kept
    average = copy.deepcopy(backbone)
    norms(backbone)[0].weight.zero_()
    torch.testing.assert_close(run(average, True)[0][-1], run(average, False)[0][-1])
    assert all(norm.weight is not None for norm in norms(backbone))


def test_16_bit_weights_are_made_together_and_gradients_are_float32():
    backbone = frozen_backbone(dtype=torch.float32)
    x = torch.rand(1, 3, 64, 64)
    with Operators() as forward, torch.autocast("cpu", torch.bfloat16):
        maps = backbone(x)
    assert all(m.dtype == torch.bfloat16 for m in maps)
    assert forward.counts["aten::_to_copy"] == 1  # the image
    assert forward.counts["aten::_foreach_copy_"] == 6  # stem, four stages, shifts
    with Operators() as backward:
        sum(m.float().mean() for m in maps).backward()
    assert backward.counts["aten::_foreach_copy_"] == 3  # the stages that train
    assert {p.grad.dtype for p in backbone.parameters() if p.requires_grad} == {torch.float32}


def test_a_map_is_saved_once():
    """What a convolution reads and what a ReLU gave are one tensor; the norm between needs none."""
    backbone, saved = frozen_backbone(dtype=torch.float32), {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 4 and tensor.shape[0] == 2:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), torch.autocast("cpu", torch.bfloat16):
        backbone(torch.rand(2, 3, 64, 64))
    # Three blocks that train: what enters each, what is between its convolutions, what its shortcut pooled;
    # and the last map.
    assert len(saved) == 3 * 3 + 1
    assert all(tensor.dtype == torch.bfloat16 for tensor in saved.values())


class Crossed(nn.Module):
    """Registers a convolution and a norm one after the other, and uses them the other way round.

    With a new norm's numbers that would be nearly the same.
    """

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.norm = FrozenBatchNorm2d(3)

    def forward(self, x):
        return [self.conv(self.norm(x))]


def test_what_does_not_fold_is_left():
    assert make_foldable(Crossed()) == ()
    backbone = Backbone(Crossed(), [3], [1])
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(backbone(x)[0], backbone.body(x)[0])
    with_bias = nn.Sequential(nn.Conv2d(3, 3, 1), FrozenBatchNorm2d(3))
    assert make_foldable(with_bias) == ()


def test_a_backbone_that_is_traced_folds_nothing():
    backbone = frozen_backbone(dtype=torch.float32).eval()
    program = torch.export.export(backbone, (torch.rand(1, 3, 64, 64),), strict=False)
    assert "foreach" not in str(program.graph)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(program.module()(x)[-1], backbone(x)[-1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_in_evaluation_weights_are_folded_once(dtype):
    backbone, x = frozen_backbone(dtype=torch.float32).eval(), torch.rand(1, 3, 64, 96)
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        exact = call_folded(backbone.body, backbone.folds, x)
        backbone(x)
        with Operators() as operators:
            maps = backbone(x)
    assert not any("foreach" in name for name in operators.counts)
    assert all(m.dtype == (dtype or torch.float32) and m.is_contiguous() for m in maps)
    for a, b in zip(maps, exact, strict=True):
        torch.testing.assert_close(
            a, b, rtol=0, atol=(1e-5 if dtype is None else 0.03) * float(b.abs().max())
        )


def test_an_evaluation_sees_what_training_did():
    """A fused optimizer changes weights without counting it."""
    backbone, x = frozen_backbone(dtype=torch.float32), torch.rand(1, 3, 64, 96)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=0.1, fused=True)
    seen = []
    for _ in range(2):
        backbone.eval()
        with torch.inference_mode():
            seen.append(backbone(x)[-1])
            expected = call_folded(backbone.body, backbone.folds, x)[-1]
        torch.testing.assert_close(seen[-1], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        backbone.train()
        sum(m.square().mean() for m in backbone(x)).backward()
        optimizer.step()
    assert not torch.allclose(*seen, rtol=0.01)
