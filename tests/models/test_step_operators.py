"""What a training step asks of a GPU, counted without one: operators, and reads of its numbers.

The figures may fall, never rise: each operator is a launch of some microseconds, each read waits for the GPU.
"""

from dataclasses import fields, replace
from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.operators import Operators, SavedBytes, Transfers
from engine.build import build_settings, build_state
from engine.train_epoch import Task, TrainStep
from models.dino.matcher import Matches
from models.dino.ops.functional import standard_operators
from models.dino.output import DetectorOutput, LayerOutput, LayerStack, QueryLogits
from models.richsem.classifier import LanguageClassifier, TextEmbeddings
from tests.models.tiny import EMBEDDING, NAMES, build, make_images, targets, tiny_config

# A step in bfloat16 with teacher and optimizer, without views and allocations; bytes kept for backward.
# Six decoder layers, so 13 prediction sets; class logits and distillation too.
STEP = {"operators": 2052, "casts": 145, "scalar reads": 0}
SAVED = 2401675
CRITERION = {"forward": 307, "backward": 135}
# Copies to the GPU: six tensors of the batch, two of the teacher. The matcher sends one more.
SENT = 8
# Clipping, AdamW with two groups, average, zeroing: as many for any number of parameters and buffers.
UPDATE = 15


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return build(tiny_config(dec_layers=6), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def step(parts):
    """What the criterion gets: the output, cut off from the model, targets, and what the teacher saw."""
    images, given = make_images(), targets((5, 3))
    output = parts.model.train()(images, given)

    def leaf(value):
        if isinstance(value, torch.Tensor):
            return value.detach().requires_grad_()
        if not isinstance(value, LayerOutput | LayerStack | QueryLogits):
            return value
        return replace(value, **{f.name: leaf(getattr(value, f.name)) for f in fields(value)})

    output = DetectorOutput(leaf(output.decoder), leaf(output.encoder), leaf(output.denoising), output.layout)
    return output, given, parts.teacher(images, given)


def test_operators_of_the_criterion(parts, step):
    with Operators() as forward:
        losses = parts.criterion(*step)
    with Operators() as backward:
        losses.total.backward()
    found = {"forward": forward.counts.total(), "backward": backward.counts.total()}
    assert all(found[name] <= CRITERION[name] for name in found), f"{found}, recorded {CRITERION}"


def make_step(folder, **changes):
    """A whole step in bfloat16, its optimizer and average included, with a frozen stem and frozen norms."""
    layers = {"enc_layers": 6, "dec_layers": 6}
    always = {"backbone_weights": "default", "amp": True, "channels_last": False, "use_ema": True}
    config = tiny_config(**layers, **always, **changes)
    parts = build(config, folder, load_backbone=False)
    device = torch.device("cpu")
    state = build_state(config, parts.model, 10, device)
    settings = replace(build_settings(config, device), autocast_dtype=torch.bfloat16)
    stepper = TrainStep(Task(parts.model, parts.criterion, parts.teacher), state, settings, 10)
    batch = make_images(), targets((5, 3))
    stepper(0, batch)  # what is made once: optimizer state, tensors that follow from shapes alone
    return stepper, batch


@pytest.fixture(scope="module")
def train_step(tmp_path_factory):
    return make_step(tmp_path_factory.mktemp("cache"))


def test_operators_of_a_step(train_step):
    stepper, batch = train_step
    with Operators() as operators:
        stepper(1, batch)
    found = {
        "operators": operators.counts.total(),
        "casts": operators.counts["aten::_to_copy"],
        "scalar reads": operators.counts["aten::_local_scalar_dense"],
    }
    assert all(found[name] <= STEP[name] for name in found), f"{found}, recorded {STEP}"


def test_operators_of_an_update(train_step):
    stepper, _ = train_step
    for parameter in stepper.parameters:
        parameter.grad = torch.ones_like(parameter)
    with Operators() as operators:
        stepper._step()
    assert operators.counts.total() <= UPDATE, f"{dict(operators.counts)}, recorded {UPDATE}"


def test_skipping_reads_one_number_a_step(tmp_path):
    stepper, batch = make_step(tmp_path, on_nonfinite="skip", accumulate_steps=2)
    with Operators() as operators:
        stepper(2, batch)
        stepper(3, batch)
    assert operators.counts["aten::_local_scalar_dense"] == 1


def test_bytes_that_a_step_keeps_for_backward(train_step):
    stepper, batch = train_step
    with SavedBytes() as saved:
        stepper(1, batch)
    assert saved.bytes <= SAVED, f"{saved.bytes}, recorded {SAVED}"


class GivenMatches:
    """In place of the matcher, whose one transfer is allowed: every image's boxes are its first queries."""

    def __call__(self, outputs, given, one_class):
        box = torch.arange(len(given.labels), device=given.labels.device)
        return Matches(given.image_index, given.box_index, box).expand(sum(map(len, outputs)))


def test_the_criterion_reads_nothing_of_a_gpu_but_what_the_matcher_transfers(parts, step, monkeypatch):
    output, given, _ = step
    with FakeTensorMode(allow_non_fake_inputs=True):

        def fake(value):
            if isinstance(value, torch.Tensor):
                return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")
            if isinstance(value, QueryLogits):
                text = TextEmbeddings(torch.empty(len(NAMES), EMBEDDING, device="cuda"), 1.0)
                return QueryLogits(fake(value.features), LanguageClassifier(torch.nn.Identity(), text))
            if value is None:
                return None
            return type(value)(*(fake(getattr(value, f.name)) for f in fields(value)))

        parts_of_output = {n: fake(getattr(output, n)) for n in ("decoder", "encoder", "denoising")}
        said = replace(output, **parts_of_output)
        wanted = replace(
            given,
            **{n: fake(getattr(given, n)) for n in ("boxes_cxcywh", "labels", "image_index", "box_index")},
        )
        monkeypatch.setattr(parts.criterion, "matcher", GivenMatches())
        monkeypatch.setattr(parts.criterion, "extra_losses", ())
        monkeypatch.setattr(parts.criterion.federated, "weights", fake(parts.criterion.federated.weights))
        losses = parts.criterion(said, wanted)
    assert losses.total.device.type == "cuda" and len(losses.named) == 39


def on_fake_gpu(module: torch.nn.Module) -> None:
    """Puts fake tensors on a GPU in place of what a module holds."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, old in held.items():
                if old is not None:
                    new = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype, device="cuda")
                    held[name] = torch.nn.Parameter(new) if isinstance(old, torch.nn.Parameter) else new


def test_what_a_forward_pass_sends_to_a_gpu_does_not_wait(tmp_path, monkeypatch):
    """The batch, the sizes of its images and of the teacher's cells."""
    parts = build(tiny_config(dec_layers=6), tmp_path)
    images, given = make_images(), targets((5, 3))
    images = replace(images, tensor=(40 * images.tensor + 120).clamp(0, 255).to(torch.uint8))
    monkeypatch.setattr(parts.criterion, "matcher", GivenMatches())
    # Without a GPU there are no streams.
    monkeypatch.setattr("models.richsem.teacher.beside", lambda compute, x: partial(compute, x))
    with FakeTensorMode(allow_non_fake_inputs=True), standard_operators():
        for module in (parts.model, parts.teacher, parts.criterion.federated):
            on_fake_gpu(module)
        task = Task(parts.model, parts.criterion, parts.teacher)
        # What is kept from step to step is copied in the first.
        task.losses((images, given), torch.device("cuda"), None)
        with Transfers() as transfers:
            losses = task.losses((images, given), torch.device("cuda"), None)
    assert losses.total.device.type == "cuda"
    assert transfers.blocking == []
    assert len(transfers.all) <= SENT, f"{transfers.all}, recorded {SENT}"
