"""The network as inference runs it finds what the model finds."""

import pytest
import torch
from torch import nn

from inference.fast import TokenRanking, _fast_backbone, rearranged
from models.dino.backbone import Backbone, make_backbone
from models.dino.postprocess import PostProcess
from models.richsem.classifier import LanguageClassifier, TextEmbeddings
from tests.models.tiny import build, make_images, tiny_config


class Before(nn.Module):
    """A batch norm that is registered after a convolution and comes before it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.norm.running_mean += 0.3

    def forward(self, x):
        return [self.conv(self.norm(x))]


def shuffled(module: nn.Module) -> nn.Module:
    """Batch norms with statistics of their own, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if hasattr(part, "running_var"):
            part.running_mean.copy_(torch.rand(part.running_mean.shape, generator=generator) - 0.5)
            part.running_var.copy_(torch.rand(part.running_var.shape, generator=generator) + 0.5)
    return module.eval()


@torch.no_grad()
@pytest.mark.parametrize("weights", ["none", "default"])
def test_batch_norms_are_folded(weights):
    backbone = shuffled(make_backbone("resnet10t", [1, 2, 3], weights, load=False))
    fast = _fast_backbone(backbone)
    x = torch.randn(2, 3, 70, 50)
    for a, b in zip(fast(x), backbone(x), strict=True):
        assert torch.allclose(a, b, atol=1e-5 * float(b.abs().max()))
    left = [sum(hasattr(m, "running_var") for m in b.modules()) for b in (fast, backbone)]
    # The one behind the stem of three convolutions stays; so does the whole original.
    assert left == [1, 14]


def test_a_backbone_of_another_order_stays_as_it_is():
    backbone = Backbone(Before().eval(), [3], [4])
    assert _fast_backbone(backbone) is backbone


@torch.no_grad()
def test_tokens_are_ranked_alike():
    torch.manual_seed(0)
    classifier = LanguageClassifier(nn.Linear(32, 64, bias=False), TextEmbeddings(torch.randn(50, 64), 4.6))
    tokens = torch.randn(2, 30, 32)
    tokens[0, 0] = 0
    ranking = TokenRanking(classifier.projection, classifier.text)
    assert torch.equal(ranking.ranking()(tokens), classifier.ranking()(tokens))
    assert ranking(tokens).shape == (2, 30, 50)


def test_a_whole_detector_finds_the_same(tmp_path):
    torch.manual_seed(0)
    model = shuffled(build(tiny_config(enc_cls_agn=False), tmp_path).model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    images, sizes = make_images(), [(640, 480), (480, 640)]
    with torch.inference_mode():
        assert rearranged(model).query_selection.classifier is not model.query_selection.classifier
        ours, theirs = (PostProcess(10)(m(images), sizes) for m in (rearranged(model), model))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.labels, b.labels)
        assert torch.allclose(a.scores, b.scores, atol=1e-5)
        assert torch.allclose(a.boxes_xyxy, b.boxes_xyxy, atol=1e-2)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
