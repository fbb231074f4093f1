import torch

from models.dino.output import DenoisingLayout, LayerOutput


def test_slots_of_a_layout():
    assert DenoisingLayout(groups=3, max_boxes=2).num_denoising_queries == 12
    assert DenoisingLayout(groups=100, max_boxes=0).num_denoising_queries == 0


def test_queries_cuts_every_tensor_alike_and_keeps_what_is_absent():
    layer = LayerOutput(torch.arange(12.0).view(1, 6, 2), torch.rand(1, 6, 4), embedding=torch.rand(1, 6, 3))
    cut = layer.slice_queries(4, None)
    assert torch.equal(cut.logits, layer.logits[:, 4:])
    assert torch.equal(cut.boxes_cxcywh, layer.boxes_cxcywh[:, 4:])
    assert torch.equal(cut.embedding, layer.embedding[:, 4:])
    assert cut.reference_boxes is None
    assert layer.slice_queries(0, 0).logits.shape == (1, 0, 2)
