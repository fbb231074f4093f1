import pytest
import torch
from torch import nn

from engine.ema import Ema


def model() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net[2].bias.requires_grad_(False)
    return net.double()


def change(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in [*net.parameters(), *net.buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype))
            else:
                value.add_(1)


@pytest.mark.parametrize("ramp", [False, True])
def test_closed_form(ramp):
    net = model()
    ema = Ema(net, decay=0.9, ramp=ramp)
    expected = net[0].weight.detach().clone()
    for t in range(20):
        change(net, t)
        ema.update(net)
        decay = min(0.9, (1 + t) / (10 + t)) if ramp else 0.9
        expected = decay * expected + (1 - decay) * net[0].weight.detach()
    assert torch.allclose(ema.module[0].weight, expected, atol=1e-12)
    assert ema.updates == 20


def test_buffers_and_frozen_weights_are_copied():
    net = model()
    ema = Ema(net, decay=0.9)
    change(net, 3)
    ema.update(net)
    for (name, shadow), value in zip(ema.module.named_buffers(), net.buffers(), strict=True):
        assert torch.equal(shadow, value), name
    assert torch.equal(ema.module[2].bias, net[2].bias)
    assert not torch.equal(ema.module[0].weight, net[0].weight)


def test_following_is_copying():
    net = model()
    ema = Ema(net, decay=0.9)
    change(net, 5)
    ema.follow(net)
    assert all(
        torch.equal(a, b)
        for a, b in zip(ema.module.state_dict().values(), net.state_dict().values(), strict=True)
    )
    assert ema.updates == 0


def test_the_shadow_does_not_train_and_stays_in_evaluation_mode():
    net = model()
    ema = Ema(net, decay=0.5)
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert not ema.module.training
    assert net.training
    change(net, 1)
    before = net[0].weight.clone()
    ema.update(net)
    assert torch.equal(net[0].weight, before)


def test_the_state_continues_the_ramp():
    net = model()
    first = Ema(net, decay=0.99, ramp=True)
    for t in range(3):
        change(net, t)
        first.update(net)
    second = Ema(model(), decay=0.99, ramp=True)
    second.load_state_dict(first.state_dict())
    change(net, 9)
    first.update(net)
    second.update(net)
    assert torch.equal(first.module[0].weight, second.module[0].weight)
    assert second.updates == 4
