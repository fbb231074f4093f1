"""Detic's max-size and max-score losses of image-level batches, by their definitions."""

from dataclasses import replace

import pytest
import torch

from models.dino.criterion import Criterion
from models.dino.federated import FederatedClasses
from models.dino.matcher import HungarianMatcher
from models.dino.one_query import choose_queries
from models.dino.output import DenoisingLayout, DetectorOutput
from tests.models.dino.test_criterion import CLASSES, LAYERS, QUERIES, WEIGHTS, layer, slow_focal_loss, stack
from tests.models.tiny import baseline_config, batch_of, build, make_images, target, targets, tiny_config

LEFT, RIGHT, WHOLE = [0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0]


def pairs(
    boxes: list[list[float]], *tiles: list[float], logits: list[list[float]] | None = None
) -> list[tuple[int, bool]]:
    """Query of each tile of one image, and whether there is one. logits: of each tile's label."""
    given = batch_of(target(tiles, [1] * len(tiles), image_level=True))
    scores = None if logits is None else torch.tensor(logits)[None]
    matches, taught = choose_queries(torch.tensor(boxes)[None, None], given, scores)
    assert matches.image.tolist() == [[0] * len(tiles)] and matches.target.tolist() == [[*range(len(tiles))]]
    return list(zip(matches.query[0].tolist(), taught[0].tolist(), strict=True))


def test_the_largest_box_of_the_image():
    assert pairs([[0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.4, 0.3], [0.9, 0.2, 0.1, 0.1]], WHOLE) == [(1, True)]


def test_what_lies_outside_of_the_image_does_not_count():
    assert pairs([[0.98, 0.98, 0.9, 0.9], [0.5, 0.5, 0.5, 0.5]], WHOLE) == [(1, True)]


def test_a_tile_of_a_mosaic_takes_the_largest_box_with_its_centre_there():
    boxes = [[0.45, 0.5, 1.0, 1.0], [0.7, 0.5, 0.3, 0.3], [0.8, 0.5, 0.2, 0.2]]
    assert pairs(boxes, LEFT, RIGHT) == [(0, True), (1, True)]


def test_the_best_score_of_the_label_in_its_tile():
    boxes = [[0.45, 0.5, 1.0, 1.0], [0.3, 0.5, 0.3, 0.3], [0.8, 0.5, 0.2, 0.2], [0.9, 0.5, 0.1, 0.1]]
    logits = [[-7.0, -3.0, 4.0, 5.0], [9.0, 8.0, -6.0, -5.0]]
    assert pairs(boxes, LEFT, RIGHT, logits=logits) == [(1, True), (3, True)]


def test_a_tile_without_a_query_teaches_nothing():
    (_, right), (query, left) = pairs([[0.2, 0.5, 0.1, 0.1], [0.3, 0.5, 0.2, 0.1]], RIGHT, LEFT)
    assert not right and left and query == 1


def said() -> DetectorOutput:
    nothing = stack(0, 20)
    return DetectorOutput(stack(QUERIES, 0), layer(QUERIES, 10), nothing, DenoisingLayout(3, 0))


def mosaics():
    """Image 0 has two tiles, image 1 one, and beside it an empty strip without a query."""
    images = ([LEFT, RIGHT], [3, 1]), ([WHOLE, [0.5, 0.001, 1.0, 0.002]], [6, 2])
    return batch_of(*(target(*image, image_level=True, dtype=torch.float64) for image in images))


def inside(box, tile) -> bool:
    return all(abs(c - t) <= side / 2 for c, t, side in zip(box[:2], tile[:2], tile[2:], strict=True))


def visible(box, tile) -> float:
    """Area of the part of the box that lies in the tile."""
    area = 1.0
    for i in (0, 1):
        low = max(box[i] - box[i + 2] / 2, tile[i] - tile[i + 2] / 2)
        area *= min(box[i] + box[i + 2] / 2, tile[i] + tile[i + 2] / 2) - low
    return area


def expected(boxes, logits, given, rule) -> dict[tuple[int, int], int]:
    """(image, query) -> class, for one layer's boxes (B, Q, 4) and logits (B, Q, C)."""
    found = {}
    for number, tile in enumerate(given.boxes_cxcywh.tolist()):
        image = int(given.image_index[number])
        candidates = [q for q, box in enumerate(boxes[image].tolist()) if inside(box, tile)]
        label = int(given.labels[number])
        if candidates and rule == "max_size":
            found[image, max(candidates, key=lambda q: visible(boxes[image, q].tolist(), tile))] = label
        elif candidates:
            found[image, max(candidates, key=lambda q: float(logits[image, q, label]))] = label
    return found


@pytest.mark.parametrize("rule", ["max_size", "max_score"])
@pytest.mark.parametrize("sampled", [False, True])
def test_only_the_class_of_the_chosen_query_of_each_decoder_layer_is_taught(sampled, rule):
    output, given = said(), mosaics()
    federated = FederatedClasses([1.0] * CLASSES, CLASSES) if sampled else None
    part = Criterion(HungarianMatcher(2.0, 5.0, 2.0), WEIGHTS, federated=federated, one_query=rule)
    losses = part(output, given)
    losses.total.backward()
    total = 0.0
    for number, boxes in enumerate(output.decoder.boxes_cxcywh):
        chosen = expected(boxes, output.decoder.classes[number].detach(), given, rule)
        assert len(chosen) == 3
        loss = 0.0
        for (image, query), label in chosen.items():
            one_hot = torch.zeros(CLASSES)
            one_hot[label] = 1
            loss += slow_focal_loss(output.decoder.classes[number, image, query].detach(), one_hot) / 4
        name = "loss_ce" if number == LAYERS - 1 else f"loss_ce_{number}"
        assert losses.named[name].item() == pytest.approx(loss, rel=1e-12)
        grad = output.decoder.classes.grad[number]
        assert {tuple(p) for p in (grad != 0).any(-1).nonzero().tolist()} == set(chosen)
        assert {(*p, int((grad[p] < 0).nonzero())) for p in chosen} == {(*p, c) for p, c in chosen.items()}
        total += loss
    assert losses.total.item() == pytest.approx(total, rel=1e-12)
    for untaught in (output.decoder.boxes_cxcywh, output.encoder.classes, output.encoder.boxes_cxcywh):
        assert not untaught.grad.any()


def test_batches_with_boxes_are_as_without_it():
    output, given = said(), replace(mosaics(), image_level=False)
    losses = [
        Criterion(HungarianMatcher(2.0, 5.0, 2.0), WEIGHTS, one_query=rule)(output, given)
        for rule in (None, "max_size")
    ]
    assert losses[0].named == losses[1].named and torch.equal(losses[0].total, losses[1].total)


@pytest.mark.parametrize(
    ("config", "rule"),
    [(baseline_config, "max_size"), (tiny_config, "max_size"), (tiny_config, "max_score")],
)
def test_a_step_of_the_model(config, rule, tmp_path):
    """No noised boxes; no losses that teach nothing; the box heads learn nothing; distillation goes on."""
    parts = build(config(image_level_loss=rule), tmp_path)
    names = []
    for image_level in (False, True):
        parts.model.zero_grad()
        images, given = make_images(), targets((2, 1), image_level=image_level)
        output = parts.model(images, given)
        losses = parts.criterion(output, given, parts.teacher(images, given) if parts.teacher else None)
        losses.total.backward()
        names.append(losses.named.keys())
        assert (output.layout.max_boxes > 0) is not image_level
    # Or they would be averaged with those of the other batches.
    assert names[1] == {
        n for n in names[0] if not any(mark in n for mark in ("_dn", "_interm", "box", "giou"))
    }
    assert any(n.startswith("loss_ce") for n in names[1])
    gradients = {name: p.grad for name, p in parts.model.named_parameters()}
    assert all(grad is not None for grad in gradients.values())
    untaught = ("head.box_head", "query_selection.box_head", "query_selection.classifier")
    for name, grad in gradients.items():
        if name.startswith(untaught):
            assert not grad.any(), name
    taught = "head.semantic_projection.weight" if parts.teacher else "head.classifier.weight"
    assert gradients[taught].any()
