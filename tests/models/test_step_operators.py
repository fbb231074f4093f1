"""What a training step asks of a GPU, counted without one: operators, and reads of its numbers.

The figures may fall, never rise: each operator is a launch of some microseconds, each read waits for the GPU.
"""

from dataclasses import fields, replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from models.dino.matcher import Matches
from models.dino.output import DetectorOutput, LayerOutput, LayerStack, QueryLogits
from models.richsem.classifier import LanguageClassifier, TextEmbeddings
from tests.models.operators import Operators
from tests.models.tiny import EMBEDDING, NAMES, build, make_images, targets, tiny_config

# Without views and allocations. Six decoder layers, so 13 prediction sets; class logits and distillation too.
CRITERION = {"forward": 318, "backward": 144}


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


class GivenMatches:
    """In place of the matcher, whose one transfer is allowed: every image's boxes are its first queries."""

    def __init__(self, given):
        self.given = given

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
        monkeypatch.setattr(parts.criterion, "matcher", GivenMatches(wanted))
        monkeypatch.setattr(parts.criterion, "extra_losses", ())
        monkeypatch.setattr(parts.criterion.federated, "weights", fake(parts.criterion.federated.weights))
        losses = parts.criterion(said, wanted)
    assert losses.total.device.type == "cuda" and len(losses.named) == 39
