from dataclasses import replace

import pytest
import torch

from models.dino.decoder import Decoder, attention_bias
from models.dino.layers import box_head, inverse_sigmoid
from tests.models.tiny import pyramid

DIM, QUERIES = 32, 5


def parts(layers: int = 3):
    torch.manual_seed(0)
    decoder = Decoder(DIM, layers, levels=2, heads=4, points=2, ffn_dim=48, dropout=0.0).double()
    head = box_head(DIM).double()
    torch.nn.init.normal_(head.layers[-1].weight, std=0.1)
    # A fresh norm does nothing to what a layer's own norm has just seen.
    torch.nn.init.normal_(decoder.norm.weight)
    queries = torch.randn(2, QUERIES, DIM).double()
    references = (0.2 + 0.6 * torch.rand(2, QUERIES, 4)).double()
    return decoder, head, queries, references, pyramid([(8, 8), (4, 4)])


def test_one_state_a_layer():
    decoder, head, queries, references, memory = parts()
    states = decoder(queries, references, memory, head, None)
    assert states.hidden.shape == (3, 2, QUERIES, DIM)
    assert states.reference_boxes.shape == (3, 2, QUERIES, 4)
    assert torch.equal(states.reference_boxes[0], references)


def test_the_last_layers_state_alone():
    decoder, head, queries, references, memory = parts()
    every = decoder(queries, references, memory, head, None)
    last = decoder(queries, references, memory, head, None, every_layer=False)
    assert torch.equal(last.hidden, every.hidden[-1:])
    assert torch.equal(last.reference_boxes, every.reference_boxes[-1:])


def test_every_layer_refines_the_box_that_entered_it():
    decoder, head, queries, references, memory = parts()
    raw = []
    for layer in decoder.layers:
        layer.register_forward_hook(lambda module, inputs, output: raw.append(output))
    states = decoder(queries, references, memory, head, None)
    boxes = states.reference_boxes
    for before, after, hidden in zip(boxes, boxes[1:], raw, strict=False):
        expected = torch.sigmoid(head(hidden) + inverse_sigmoid(before))
        assert torch.allclose(after, expected, atol=1e-12)
    for state, hidden in zip(states.hidden, raw, strict=True):
        assert torch.equal(state, decoder.norm(hidden))


def test_gradients_of_a_layers_reference_end_one_layer_before():
    """Look forward twice: one refinement deep. The reference that a layer attends around is detached."""
    decoder, head, queries, references, memory = parts()
    references.requires_grad_()
    states = decoder(queries, references, memory, head, None)
    own = torch.autograd.grad(states.reference_boxes[0].sum(), references, retain_graph=True)[0]
    assert torch.equal(own, torch.ones_like(references))
    later = torch.autograd.grad(states.reference_boxes[1].sum(), references, retain_graph=True)[0]
    assert not later.any()
    reached = torch.autograd.grad(
        states.reference_boxes[2].sum(), list(decoder.layers[1].ffn.parameters()), allow_unused=True
    )
    assert all(g is not None and g.abs().sum() > 0 for g in reached)


@pytest.mark.parametrize("blocked", [True, False])
def test_masked_queries_do_not_reach_the_others(blocked):
    decoder, head, queries, references, memory = parts()
    mask = torch.zeros(QUERIES, QUERIES, dtype=torch.bool)
    mask[2:, :2] = blocked
    changed = queries.clone()
    changed[:, :2] += 1
    first = decoder(queries, references, memory, head, mask).hidden[-1]
    second = decoder(changed, references, memory, head, mask).hidden[-1]
    assert torch.allclose(first[:, 2:], second[:, 2:], atol=1e-12) == blocked
    assert not torch.allclose(first[:, :2], second[:, :2])


def test_references_are_scaled_to_the_padded_levels():
    """With half of the width padded, a box of the image is looked for in the left half of the levels."""
    decoder, head, queries, references, _ = parts(layers=1)
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[:, :, 32:] = True
    memory = pyramid([(8, 8), (4, 4)], mask=mask)
    seen = []
    decoder.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2]))
    decoder(queries, references, memory, head, None)
    expected = references * references.new_tensor([0.5, 1, 0.5, 1])
    assert seen[0].shape == (2, QUERIES, 2, 4)
    assert torch.allclose(seen[0][:, :, 0], expected) and torch.allclose(seen[0][:, :, 1], expected)


def test_self_attention_is_that_of_torch():
    decoder, _, queries, *_ = parts()
    layer = decoder.layers[0]
    mask = torch.rand(QUERIES, QUERIES, generator=torch.Generator().manual_seed(2)) < 0.3
    mask.fill_diagonal_(False)
    placed = queries + torch.randn_like(queries)
    ours = layer._attend(placed, queries, attention_bias(mask, queries))
    theirs = layer.self_attn(placed, placed, queries, attn_mask=mask, need_weights=False)[0]
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    assert torch.allclose(layer._attend(placed, queries, None), layer.self_attn(placed, placed, queries)[0])


def test_self_attention_on_a_cpu_stays_in_float32(monkeypatch):
    decoder, *_ = parts()
    seen = []

    attention = torch.nn.functional.scaled_dot_product_attention

    def watched(*heads, attn_mask, dropout_p):
        seen.extend(t.dtype for t in (*heads, attn_mask))
        return attention(*heads, attn_mask=attn_mask, dropout_p=dropout_p)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    layer, queries = decoder.bfloat16().layers[0], torch.randn(2, QUERIES, DIM).bfloat16()
    bias = attention_bias(torch.zeros(QUERIES, QUERIES, dtype=torch.bool), queries)
    assert layer._attend(queries, queries, bias).dtype == torch.bfloat16
    assert seen == [torch.float32] * 4


def test_the_decoder_runs_in_16_bit_and_its_boxes_do_not():
    decoder, head, queries, references, memory = parts()
    decoder, head, queries, references = decoder.float(), head.float(), queries.float(), references.float()
    memory = replace(memory, tokens=memory.tokens.float(), valid_ratios=memory.valid_ratios.float())
    exact = decoder(queries, references, memory, head, None)
    with torch.autocast("cpu", torch.bfloat16):
        states = decoder(queries, references, memory, head, None)
    assert states.hidden.dtype == torch.bfloat16 and states.reference_boxes.dtype == torch.float32
    assert (states.reference_boxes - exact.reference_boxes).abs().max() < 0.02
