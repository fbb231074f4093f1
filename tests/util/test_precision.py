import logging

import pytest
import torch

from config import Config
from engine.build import build_settings, build_state
from tests.models.tiny import baseline_config, build
from util import precision
from util.errors import UserError
from util.precision import choose_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def device(monkeypatch):
    """Makes devices that multiply in bfloat16, or that do not."""

    def make(has_bfloat16: bool) -> None:
        monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: has_bfloat16)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16 or including_emulation
        )
        # Without a GPU there is no such context.
        monkeypatch.setattr(torch.cuda.device, "__init__", lambda *_: None)
        monkeypatch.setattr(torch.cuda.device, "__enter__", lambda *_: None)
        monkeypatch.setattr(torch.cuda.device, "__exit__", lambda *_: None)

    return make


@pytest.mark.parametrize("has_bfloat16", [True, False])
@pytest.mark.parametrize("where", [CPU, GPU])
def test_auto_is_16_bit_where_the_device_multiplies_in_it(device, has_bfloat16, where):
    device(has_bfloat16)
    chosen = choose_precision("auto", "bfloat16", where)
    assert chosen.dtype == (torch.bfloat16 if has_bfloat16 else None)
    assert choose_precision("auto", "float16", where).dtype == (torch.float16 if where == GPU else None)
    assert choose_precision(False, "bfloat16", where).dtype is None


def test_what_was_asked_for_is_taken_but_on_a_cpu_that_emulates_bfloat16(device):
    device(False)
    assert choose_precision(True, "bfloat16", GPU).dtype == torch.bfloat16
    assert choose_precision(True, "float16", CPU).dtype == torch.float16
    assert choose_precision(True, "bfloat16", CPU).dtype is None


@pytest.mark.parametrize(
    ("amp", "has_bfloat16", "line"),
    [
        ("auto", True, "precision: bfloat16 (amp='auto': this CPU multiplies in it)"),
        ("auto", False, "precision: float32 (amp='auto': this CPU does not multiply in bfloat16 itself)"),
        (True, False, "precision: float32 (amp=True: this CPU does not multiply in bfloat16 itself)"),
        (False, True, "precision: float32 (amp=False)"),
    ],
)
def test_a_run_says_its_precision_and_why(device, caplog, amp, has_bfloat16, line):
    device(has_bfloat16)
    caplog.set_level(logging.INFO, logger="engine")
    settings = build_settings(Config(amp=amp), CPU)
    assert settings.autocast_dtype == (torch.bfloat16 if "bfloat16 (" in line else None)
    assert caplog.messages == [line]


@pytest.mark.parametrize("amp", [True, "auto"])
def test_losses_are_scaled_in_float16_alone(amp):
    model = torch.nn.Linear(2, 2)

    def scales(**changes) -> bool:
        return build_state(Config(amp=amp, **changes), model, 4, CPU).scaler.is_enabled()

    assert scales(amp_dtype="float16") == (amp is True)
    assert not scales()


def test_other_values_are_errors():
    for key in ("amp", "channels_last"):
        with pytest.raises(UserError, match=f"{key}.*'auto', True, False"):
            Config(**{key: "bf16"})


@pytest.mark.parametrize(("amp", "last"), [("auto", True), (True, True), (False, False)])
def test_channels_last_follows_the_precision(device, tmp_path, amp, last):
    device(True)
    backbone = build(baseline_config(amp=amp), tmp_path).model.backbone
    weights = [p for p in backbone.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[-1] > 1]
    assert weights and all(p.is_contiguous(memory_format=torch.channels_last) == last for p in weights)


def test_emulated_bfloat16_is_not_used_and_said_once(device, caplog):
    device(False)
    precision._warn_of_emulation.cache_clear()
    caplog.set_level(logging.INFO, logger="util")
    for _ in range(2):
        assert precision.autocast_dtype("bfloat16", CPU) is None
    assert precision.autocast_dtype("float16", CPU) == torch.float16
    assert precision.autocast_dtype("bfloat16", GPU) == torch.bfloat16
    assert len(caplog.messages) == 1


def test_this_cpu_answers():
    assert isinstance(precision.cpu_has_bfloat16(), bool)
