import pytest
import torch

from models.dino.decoder import DecoderStates
from models.dino.heads import ClassifierLabelEmbedding, DecoderHead, LinearClassifier
from models.dino.layers import inverse_sigmoid


def state(dim: int = 8) -> DecoderStates:
    torch.manual_seed(0)
    return DecoderStates(torch.randn(2, 2, 3, dim), torch.rand(2, 2, 3, 4, requires_grad=True))


def test_a_linear_classifier_starts_at_the_focal_prior():
    classifier = LinearClassifier(8, 5)
    assert classifier.bias.sigmoid().tolist() == pytest.approx([0.01] * 5)


def test_best_is_the_best_class():
    classifier = LinearClassifier(8, 5)
    queries = torch.randn(2, 3, 8)
    assert torch.equal(classifier.ranking()(queries), classifier(queries).max(-1).values)


def test_class_rows_are_the_weights_and_share_their_gradient():
    classifier = LinearClassifier(8, 5)
    rows = ClassifierLabelEmbedding(classifier)(torch.tensor([3, 0, 3]))
    assert torch.equal(rows, classifier.weight[[3, 0, 3]])
    rows.sum().backward()
    assert classifier.weight.grad[:, 0].tolist() == [1, 0, 0, 2, 0]


def test_a_fresh_box_head_gives_the_reference_back():
    head, given = DecoderHead(8, LinearClassifier(8, 5)), state()
    output = head(given)
    assert torch.allclose(output.boxes_cxcywh, inverse_sigmoid(given.reference_boxes).sigmoid())
    assert len(output) == 2 and output[0].logits.shape == (2, 3, 5)
    assert output.embedding is None


def test_boxes_pass_gradients_on_to_the_reference_but_the_report_of_it_does_not():
    """Look forward twice: the loss of a layer's box reaches the refinement before it."""
    head, given = DecoderHead(8, LinearClassifier(8, 5)), state()
    output = head(given)
    output.boxes_cxcywh.sum().backward()
    assert given.reference_boxes.grad.abs().sum() > 0
    assert not output.reference_boxes.requires_grad
    assert torch.equal(output.reference_boxes, given.reference_boxes)


def test_a_box_is_the_shift_added_to_the_inverse_sigmoid():
    head, given = DecoderHead(8, LinearClassifier(8, 5)), state()
    torch.nn.init.normal_(head.box_head.layers[-1].weight)
    shift = head.box_head(given.hidden)
    expected = torch.sigmoid(shift + inverse_sigmoid(given.reference_boxes))
    assert torch.allclose(head(given).boxes_cxcywh, expected)
    assert not torch.allclose(expected, given.reference_boxes, atol=1e-2)
