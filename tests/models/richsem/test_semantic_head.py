import pytest
import torch
from torch import nn

from models.dino.decoder import DecoderStates
from models.dino.heads import DecoderHead, LinearClassifier
from models.dino.output import logits_of
from models.richsem.semantic_head import SemanticHead

DIM, WIDTH = 8, 16


def parts(every_layer: bool = False):
    torch.manual_seed(0)
    head = SemanticHead(DIM, LinearClassifier(DIM, 5), nn.Linear(DIM, WIDTH), every_layer)
    return head, DecoderStates(torch.randn(3, 2, 4, DIM), torch.rand(3, 2, 4, 4))


@pytest.mark.parametrize("every_layer", [True, False])
def test_where_the_branch_speaks(every_layer):
    head, states = parts(every_layer)
    spoken = [layer.embedding is not None for layer in head.train()(states)]
    assert spoken == [every_layer, every_layer, True]
    assert all(layer.embedding is None for layer in head.eval()(states))


@pytest.mark.parametrize("every_layer", [True, False])
def test_it_gives_unit_vectors_of_its_own_projection(every_layer):
    head, states = parts(every_layer)
    for layer in head.train()(states):
        if layer.embedding is not None:
            projected = head.semantic_projection(layer.hidden)
            assert torch.allclose(
                layer.embedding, projected / projected.norm(dim=-1, keepdim=True), atol=1e-6
            )


def test_the_rest_is_the_decoders_head():
    head, states = parts()
    plain = DecoderHead(DIM, head.classifier)
    plain.box_head = head.box_head
    expected, found = plain(states), head.train()(states)
    assert torch.equal(logits_of(found.classes), logits_of(expected.classes))
    assert torch.equal(found.boxes_cxcywh, expected.boxes_cxcywh)
    assert torch.equal(found.reference_boxes, expected.reference_boxes)
