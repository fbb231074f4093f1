import pytest
import torch
from torch import nn

from engine.average import WeightAverage
from engine.state import TrainingState


def model() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net[2].bias.requires_grad_(False)
    return net.double()


def averaged(net: nn.Module, decay: float, warmup: bool = False) -> TrainingState:
    """A training state of which only the average matters here."""
    ema = WeightAverage(net, decay, warmup)
    return TrainingState(net, optimizer=None, schedule=None, steps_per_epoch=1, scaler=None, ema=ema)


def change(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in [*(p for p in net.parameters() if p.requires_grad), *net.buffers()]:
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype))
            else:
                value.add_(1)


@pytest.mark.parametrize("warmup", [False, True])
def test_closed_form(warmup):
    net = model()
    state = averaged(net, 0.9, warmup)
    expected = net[0].weight.detach().clone()
    for t in range(20):
        change(net, t)
        state.update_average()
        decay = min(0.9, (1 + t) / (10 + t)) if warmup else 0.9
        expected = decay * expected + (1 - decay) * net[0].weight.detach()
    assert torch.allclose(state.ema.module[0].weight, expected, atol=1e-12)
    assert state.ema_updates == 20


def test_buffers_and_frozen_weights_are_copied():
    net = model()
    state = averaged(net, 0.9)
    change(net, 3)
    state.update_average()
    for (name, shadow), value in zip(state.ema.module.named_buffers(), net.buffers(), strict=True):
        assert torch.equal(shadow, value), name
    assert torch.equal(state.ema.module[2].bias, net[2].bias)
    assert not torch.equal(state.ema.module[0].weight, net[0].weight)


def test_the_shadow_does_not_train_and_stays_in_evaluation_mode():
    net = model()
    state = averaged(net, 0.5)
    assert not any(p.requires_grad for p in state.ema.module.parameters())
    assert not state.ema.module.training
    assert net.training
    change(net, 1)
    before = net[0].weight.clone()
    state.update_average()
    assert torch.equal(net[0].weight, before)
