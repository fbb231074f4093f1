import pytest
import torch
from torch import nn

from models.dino.decoder import DecoderLayerOutput
from models.dino.heads import DecoderHead, LinearClassifier
from models.richsem.semantic_head import SemanticHead

DIM, WIDTH = 8, 16


def parts(every_layer: bool = False):
    torch.manual_seed(0)
    head = SemanticHead(DIM, LinearClassifier(DIM, 5), nn.Linear(DIM, WIDTH), every_layer)
    return head, DecoderLayerOutput(torch.randn(2, 3, DIM), torch.rand(2, 3, 4))


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("every_layer", [True, False])
def test_where_the_branch_speaks(every_layer, last):
    head, state = parts(every_layer)
    assert (head.train()(state, last).embedding is not None) == (last or every_layer)
    assert head.eval()(state, last).embedding is None


def test_it_gives_unit_vectors_of_its_own_projection():
    head, state = parts()
    embedding = head.train()(state, last=True).embedding
    projected = head.semantic_projection(state.hidden)
    assert torch.allclose(embedding, projected / projected.norm(dim=-1, keepdim=True), atol=1e-6)


def test_the_rest_is_the_decoders_head():
    head, state = parts()
    plain = DecoderHead(DIM, head.classifier)
    plain.box_head = head.box_head
    expected, found = plain(state, last=True), head.train()(state, last=True)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.boxes_cxcywh, expected.boxes_cxcywh)
    assert torch.equal(found.reference_boxes, expected.reference_boxes)
