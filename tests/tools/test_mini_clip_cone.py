"""The common component of the small CLIP's texts changes what they share, not what they say."""

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tools.mini_clip.cone import add_common_component
from tools.mini_clip.model import MiniClipSize, build

NAMES = ["plain_red_star", "striped_blue_ring", "banana", "a"]


@pytest.fixture
def clip():
    torch.manual_seed(0)
    size = MiniClipSize(embed_dim=32, vision_width=4, image_size=64, text_width=16, context_length=16)
    model = build(size).eval()
    # As after training: gains and biases of all sizes.
    nn.init.uniform_(model.ln_final.weight, 0.5, 1.5)
    nn.init.normal_(model.ln_final.bias, std=0.3)
    return model, open_clip.SimpleTokenizer(context_length=16)


@torch.no_grad()
def test_every_text_moves_by_the_same_unused_direction(clip):
    model, tokenizer = clip
    before = model.encode_text(tokenizer(NAMES))
    add_common_component(model)
    moved = model.encode_text(tokenizer(NAMES)) - before
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=1e-4, atol=1e-4)
    assert (F.normalize(moved) * F.normalize(before)).sum(1).abs().max() < 1e-3
    assert moved.norm(dim=1).min() > before.norm(dim=1).mean()


@torch.no_grad()
def test_texts_form_a_cone_and_images_are_told_apart_as_before(clip):
    model, tokenizer = clip
    texts = F.normalize(model.encode_text(tokenizer(NAMES)), dim=1)
    # Images that lie between two texts, as a trained image tower would place them.
    shares = torch.tensor([[0.6, 0.4, 0, 0], [0, 0.7, 0.3, 0], [0, 0, 0.9, 0.1], [0.2, 0, 0, 0.8]])
    images = F.normalize(shares @ texts, dim=1)
    before = (model.logit_scale.exp() * images @ texts.T).softmax(1)
    add_common_component(model)
    texts = F.normalize(model.encode_text(tokenizer(NAMES)), dim=1)
    after = (model.logit_scale.exp() * images @ texts.T).softmax(1)
    cosines = texts @ texts.T
    assert cosines.min() > 0.5
    assert after.argmax(1).tolist() == before.argmax(1).tolist() == [0, 1, 2, 3]
    # Lengths of texts differ more here than after training, so shares move a little.
    torch.testing.assert_close(after, before, atol=0.3, rtol=0)


@torch.no_grad()
def test_a_bias_against_the_gain_is_no_obstacle(clip):
    model, tokenizer = clip
    model.ln_final.bias.zero_()
    add_common_component(model)
    texts = F.normalize(model.encode_text(tokenizer(NAMES)), dim=1)
    assert torch.isfinite(texts).all()
    assert (texts @ texts.T).min() > 0.5
