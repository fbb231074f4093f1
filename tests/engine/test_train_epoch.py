import json
import logging
from dataclasses import replace

import pytest
import torch

from engine.accumulate import fill_missing_gradients, micro_batches_in_step, touch_all_parameters
from engine.device import to_device
from engine.run_log import RunLog, read_log
from engine.train_epoch import train_one_epoch
from tests.engine.toys import ToyDetector, ToyLoader, make_toy, toy_images
from util.errors import UserError


def weights(toy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in toy.state.model.state_dict().items()}


def test_training_lowers_the_loss():
    toy = make_toy(ToyLoader(toy_images(), 2), epochs=30, lr=0.02, lr_drop=30)
    losses = []
    for _ in range(30):
        losses.append(train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)["total"])
        toy.state.finish_epoch()
    assert losses[-1] < 0.8 * losses[0]


def test_accumulated_small_batches_equal_one_big_batch():
    images = toy_images(8)
    big = make_toy(ToyLoader(images, 4))
    small = make_toy(ToyLoader(images, 2), accumulate_steps=2)
    for toy in (big, small):
        train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)
    assert big.state.step == small.state.step == 2
    for name, value in weights(big).items():
        if name != "calls":
            assert torch.allclose(value, weights(small)[name], atol=1e-6), name


def test_the_last_group_of_an_epoch_may_be_smaller():
    images = toy_images(10)
    toy = make_toy(ToyLoader(images, 2), accumulate_steps=3)
    train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)
    # Five batches in threes are two steps: six images, then four.
    whole = make_toy(ToyLoader(images, 1), seed=1)
    whole.loader = _Grouped(images, [6, 4])
    train_one_epoch(whole.task, whole.state, whole.loader, whole.settings)
    assert toy.state.step == whole.state.step == 2
    for name, value in weights(whole).items():
        if name != "calls":
            assert torch.allclose(value, weights(toy)[name], atol=1e-6), name


class _Grouped(ToyLoader):
    """Batches of given sizes."""

    def __init__(self, images, sizes) -> None:
        super().__init__(images, 1)
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self):
        start = 0
        for size in self.sizes:
            yield next(iter(ToyLoader(self.images[start : start + size], size)))
            start += size


def test_group_sizes():
    assert [micro_batches_in_step(i, 7, 3) for i in range(7)] == [3, 3, 3, 3, 3, 3, 1]
    assert [micro_batches_in_step(i, 3, 1) for i in range(3)] == [1, 1, 1]


def length_of_step(*image_level: bool, batch_size: int = 2, **changes) -> float:
    """How far the weights move in one step of plain descent, which shows the gradient itself.

    image_level: of each of the two images; none of them where nothing is said.
    """
    of_images = image_level or (False, False)
    images = [
        (image, replace(target, image_level=flag))
        for (image, target), flag in zip(toy_images(2), of_images, strict=True)
    ]
    toy = make_toy(ToyLoader(images, batch_size), use_ema=False, **changes)
    before = weights(toy)
    toy.state.optimizer = torch.optim.SGD(toy.state.model.parameters(), lr=1.0)
    toy.state.schedule = torch.optim.lr_scheduler.LambdaLR(toy.state.optimizer, lambda step: 1.0)
    train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)
    assert toy.state.step == 1
    after = weights(toy)
    return sum((after[n] - before[n]).square().sum() for n in after if n != "calls").sqrt().item()


def test_gradients_are_clipped_and_0_is_off():
    assert length_of_step(clip_max_norm=1e-3) == pytest.approx(1e-3, rel=1e-2)
    assert length_of_step(clip_max_norm=0.0) > 1e-2


@pytest.mark.parametrize("clip", [0.0, 1e-3, 1e3])
def test_an_image_level_batch_moves_the_weights_by_its_weight_clipped_or_not(clip):
    whole = length_of_step(True, True, clip_max_norm=clip)
    light = length_of_step(True, True, clip_max_norm=clip, image_level_weight=0.2)
    assert light == pytest.approx(0.2 * whole, rel=1e-2)
    assert length_of_step(clip_max_norm=clip, image_level_weight=0.2) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("image_level", "length"), [((True, True), 2e-4), ((True, False), 1e-3), ((False, True), 1e-3)]
)
def test_an_accumulated_step_is_as_long_as_its_heaviest_batch_may_be(image_level, length):
    two = {"batch_size": 1, "accumulate_steps": 2}
    found = length_of_step(*image_level, **two, clip_max_norm=1e-3, image_level_weight=0.2)
    assert found == pytest.approx(length, rel=1e-2)


def test_a_loss_that_is_not_finite_stops_with_one_line(tmp_path):
    images = toy_images(6)
    images[3][0].fill_(float("nan"))
    toy = make_toy(ToyLoader(images, 2), teacher=True, log_interval=50)
    with pytest.raises(UserError) as caught:
        train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)
    message = str(caught.value)
    assert "epoch 1, iteration 2:" in message
    assert "total, loss_bbox, loss_distill" in message
    assert "images 102, 103" in message
    assert "\n" not in message


def test_the_teacher_is_asked_without_gradient_and_heard():
    toy = make_toy(ToyLoader(toy_images(), 2), teacher=True)
    means = train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)
    assert means["loss_distill"] > 0
    assert toy.task.teacher.scale.grad is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_runs_and_the_criterion_sees_float32_parameters(dtype, monkeypatch):
    monkeypatch.setattr("util.precision.cpu_has_bfloat16", lambda: True)
    toy = make_toy(ToyLoader(toy_images(), 2), amp=True, amp_dtype=dtype)
    assert toy.state.scaler.is_enabled() == (dtype == "float16")
    before = weights(toy)
    means = train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)
    assert 0 < means["total"] < 10
    assert all(value.dtype != getattr(torch, dtype) for value in toy.state.model.state_dict().values())
    assert not torch.equal(before["head.weight"], weights(toy)["head.weight"])


def test_one_process_steps_parameters_without_gradient_like_several():
    toy = make_toy(ToyLoader(toy_images(4, boxes=0), 2), weight_decay=0.5)
    with torch.no_grad():
        toy.state.model.hint.fill_(1.0)
    train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)
    expected = (1 - 0.01 * 0.5) ** 2  # decoupled weight decay of two steps, no gradient
    assert toy.state.model.hint[0].item() == pytest.approx(expected)


def test_every_parameter_gets_a_gradient_through_the_anchor():
    model = ToyDetector()
    used = model.head.bias.sum()
    parameters = list(model.parameters())
    (2 * touch_all_parameters(used, parameters)).backward()
    assert torch.equal(model.head.bias.grad, torch.full((4,), 2.0))
    for name, parameter in model.named_parameters():
        if name != "head.bias":
            assert torch.equal(parameter.grad, torch.zeros_like(parameter)), name


def test_missing_gradients_become_zero_and_others_stay():
    model = ToyDetector()
    model.hint.sum().backward()
    fill_missing_gradients(model.parameters())
    assert torch.equal(model.hint.grad, torch.ones(4))
    assert torch.equal(model.head.weight.grad, torch.zeros_like(model.head.weight))


def test_the_average_starts_at_its_epoch():
    toy = make_toy(ToyLoader(toy_images(), 2), ema_epoch=1)
    train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)
    assert toy.state.ema_updates == 0
    toy.state.finish_epoch()
    train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)
    assert toy.state.ema_updates == 4


def test_log_lines_and_objects(tmp_path, caplog):
    toy = make_toy(ToyLoader(toy_images(10), 2), teacher=True, log_interval=2)
    caplog.set_level(logging.INFO, logger="engine")
    log = RunLog(tmp_path / "log.jsonl")
    train_one_epoch(toy.task, toy.state, toy.loader, toy.settings, log)
    log.close()
    entries = read_log(tmp_path / "log.jsonl")
    assert [(e["kind"], e["epoch"], e["iteration"], e["step"]) for e in entries] == [
        ("step", 1, 2, 2),
        ("step", 1, 4, 4),
        ("step", 1, 5, 5),
    ]
    for entry in entries:
        assert set(entry["losses"]) == {"loss_bbox", "loss_distill"}
        assert entry["total"] == pytest.approx(
            entry["losses"]["loss_bbox"] + 0.1 * entry["losses"]["loss_distill"]
        )
        for key in ("lr", "grad_norm", "seconds", "memory_bytes"):
            assert entry[key] > 0, key
        assert 0 <= entry["data_seconds"] <= entry["seconds"]
    assert len(caplog.messages) == 3
    for word in ("epoch 1/3 2/5", "total ", "box ", "distill ", "lr 1.0e-02", "s/it", "GiB", "eta "):
        assert word in caplog.messages[0], word
    assert "\n" not in caplog.messages[0]


def test_losses_are_not_read_between_log_lines(monkeypatch):
    toy = make_toy(ToyLoader(toy_images(12), 2), log_interval=50)
    reads = []
    real = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: reads.append(self.numel()) or real(self))
    monkeypatch.setattr(torch.Tensor, "item", lambda self: pytest.fail("a loss was read"))
    train_one_epoch(toy.task, toy.state, toy.loader, toy.settings)
    # total, loss_bbox and grad_norm of six steps, in one reading
    assert reads == [18]


def test_debug_stops_early():
    from dataclasses import replace

    toy = make_toy(ToyLoader(toy_images(8), 2))
    train_one_epoch(toy.task, toy.state, toy.loader, replace(toy.settings, max_iterations=3))
    assert toy.state.step == 3
    assert toy.settings.iterations(4) == 4


def test_batches_move_as_a_whole():
    images, targets = to_device(next(iter(ToyLoader(toy_images(2), 2))), torch.device("meta"))
    assert images.tensor.device.type == "meta"
    assert [t.boxes_cxcywh.device.type for t in targets] == ["meta", "meta"]


def test_numbers_that_are_not_finite_are_null_in_the_file(tmp_path):
    log = RunLog(tmp_path / "log.jsonl")
    log.epoch({"epoch": 1, "step": 4, "total": float("nan"), "losses": {"a": float("inf")}, "metrics": None})
    text = (tmp_path / "log.jsonl").read_text()
    assert json.loads(text)["losses"] == {"a": None}
    assert json.loads(text)["total"] is None
    assert "NaN" not in text
