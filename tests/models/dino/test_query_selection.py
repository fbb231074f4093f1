import pytest
import torch

from models.dino.heads import LinearClassifier
from models.dino.query_selection import QuerySelection, proposal_anchors
from tests.models.tiny import pyramid

SHAPES = [(8, 8), (4, 4)]


def padded_mask() -> torch.Tensor:
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[1, :, 48:] = True
    return mask


def selection(queries: int = 10, classes: int = 3) -> QuerySelection:
    torch.manual_seed(0)
    part = QuerySelection(32, queries, LinearClassifier(32, classes)).double()
    torch.nn.init.normal_(part.box_head.layers[-1].weight, std=0.1)
    return part


def test_proposals_against_a_slow_loop():
    memory = pyramid(SHAPES, mask=padded_mask())
    anchors, valid = proposal_anchors(memory)
    for b, valid_columns in enumerate(((8, 4), (6, 3))):
        token = 0
        for level, (height, width) in enumerate(SHAPES):
            for row in range(height):
                for column in range(width):
                    x, y = (column + 0.5) / valid_columns[level], (row + 0.5) / height
                    side = 0.05 * 2**level
                    inside = all(0.01 < v < 0.99 for v in (x, y)) and column < valid_columns[level]
                    assert valid[b, token].item() == inside
                    if inside:
                        expected = [x, y, side, side]
                        assert anchors[b, token].sigmoid().tolist() == pytest.approx(expected)
                    else:
                        assert anchors[b, token].tolist() == [float("inf")] * 4
                    token += 1


def test_a_border_token_may_not_propose():
    """On a level 64 cells wide the first centre is at 0.0078 of the image."""
    _, valid = proposal_anchors(pyramid([(64, 64)]))
    grid = valid[0].view(64, 64)
    assert not grid[0].any() and not grid[:, -1].any()
    assert grid[1:-1, 1:-1].all()


def test_tokens_are_ranked_by_their_best_class():
    part, memory = selection(), pyramid(SHAPES)
    found = part(memory)
    hidden = part.norm(part.projection(memory.tokens))
    scores = part.classifier(hidden).amax(-1)
    best = scores.topk(10, dim=1)
    assert torch.allclose(found.encoder.logits.amax(-1), best.values)
    assert torch.allclose(found.encoder.logits[0], part.classifier(hidden)[0, best.indices[0]])
    anchors, _ = proposal_anchors(memory)
    expected = torch.sigmoid(part.box_head(hidden) + anchors)[0, best.indices[0]]
    assert torch.allclose(found.encoder.boxes_cxcywh[0], expected)


def test_in_evaluation_the_encoders_logits_are_computed_where_they_are_read():
    part, memory, calls = selection().eval(), pyramid(SHAPES), []
    part.classifier.register_forward_hook(lambda *_: calls.append(1))
    found = part(memory)
    ranked = len(calls)
    assert found.encoder.logits.shape == (2, 10, 3) and len(calls) == ranked + 1
    assert torch.equal(found.encoder.logits, part.classifier(found.encoder.hidden))


def test_references_are_the_chosen_boxes_without_gradient_and_content_goes_by_rank():
    part = selection()
    found = part(pyramid(SHAPES))
    assert torch.equal(found.reference_boxes, found.encoder.boxes_cxcywh)
    assert not found.reference_boxes.requires_grad and found.encoder.boxes_cxcywh.requires_grad
    assert torch.equal(found.queries, part.content.weight.expand(2, -1, -1))


def test_padded_tokens_stay_in_the_ranking_as_the_whole_image():
    """Their memory is zero, so all have one score; chosen, the box is (1, 1, 1, 1) (release behaviour)."""
    part = selection(queries=5)
    memory = pyramid(SHAPES, mask=padded_mask())
    # Make the one score of zeroed memory the best of all.
    with torch.no_grad():
        part.projection.bias.copy_(torch.randn(32).double())
        part.norm.bias.zero_()
        direction = part.norm(part.projection.bias)
        part.classifier.weight.copy_(direction.expand(3, -1))
        part.projection.weight.mul_(0.1)
    found = part(memory)
    padded = 80 - int(memory.mask[1].logical_not().sum())
    assert padded >= 5
    assert found.reference_boxes[1].eq(1).all()
    assert torch.isfinite(found.encoder.logits).all()
    constant = part.classifier.ranking()(part.norm(part.projection.bias))
    assert found.encoder.logits[1].amax(-1).tolist() == pytest.approx([constant.item()] * 5)
    assert not found.reference_boxes[0].eq(1).all(-1).any()


def test_what_lies_in_the_padding_does_not_matter():
    part, memory = selection(), pyramid(SHAPES, mask=padded_mask())
    before = part(memory)
    memory.tokens[memory.mask] = 1e3
    after = part(memory)
    assert torch.equal(before.reference_boxes, after.reference_boxes)


def test_fewer_tokens_than_queries():
    found = selection(queries=30)(pyramid([(4, 4)]))
    assert found.queries.shape == (2, 16, 32) and found.reference_boxes.shape == (2, 16, 4)
    assert found.encoder.logits.shape == (2, 16, 3)


def test_gradients_reach_the_chosen_tokens_alone():
    part, memory = selection(queries=4), pyramid(SHAPES)
    memory.tokens.requires_grad_()
    found = part(memory)
    (found.encoder.logits.sum() + found.encoder.boxes_cxcywh.sum()).backward()
    touched = memory.tokens.grad.abs().sum(-1) > 0
    scores = part.classifier.ranking()(part.norm(part.projection(memory.tokens)))
    assert touched.sum(1).tolist() == [4, 4]
    assert torch.equal(
        touched.nonzero(), torch.zeros_like(touched).scatter(1, scores.topk(4).indices, True).nonzero()
    )


def test_scoring_in_chunks_changes_nothing(monkeypatch):
    part, memory = selection(), pyramid(SHAPES)
    whole = part(memory)
    monkeypatch.setattr("models.dino.query_selection.CHUNK", 14)
    assert torch.equal(part(memory).reference_boxes, whole.reference_boxes)


def test_an_infinite_anchor_has_a_zero_gradient():
    part = selection(queries=80)
    memory = pyramid(SHAPES, mask=padded_mask())
    part(memory).encoder.boxes_cxcywh.sum().backward()
    gradients = [p.grad for p in part.box_head.parameters()]
    assert all(torch.isfinite(g).all() for g in gradients) and gradients[0].abs().sum() > 0
