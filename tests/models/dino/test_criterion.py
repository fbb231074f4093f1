from dataclasses import replace
from itertools import product
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from models.dino.criterion import Criterion, PredictionSet, denoising_matches
from models.dino.federated import ClassSample, FederatedClasses
from models.dino.losses import giou_loss, l1_loss
from models.dino.matcher import HungarianMatcher
from models.dino.output import DenoisingLayout, DetectorOutput, LayerOutput, LayerStack
from tests.models.tiny import batch_of, target, targets
from util.structures import Targets

CLASSES, QUERIES, LAYERS = 7, 6, 3
WEIGHTS = {
    "loss_ce": 1.0,
    "loss_bbox": 5.0,
    "loss_giou": 2.0,
}
SUFFIXES = ("", "_0", "_1", "_interm", "_dn", "_dn_0", "_dn_1")


def stack(queries: int, seed: int) -> LayerStack:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(LAYERS, 2, queries, CLASSES, generator=generator).double()
    boxes = 0.2 + 0.5 * torch.rand(LAYERS, 2, queries, 4, generator=generator).double()
    return LayerStack(logits.requires_grad_(), boxes.requires_grad_())


def layer(queries: int, seed: int) -> LayerOutput:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, queries, CLASSES, generator=generator).double().requires_grad_()
    boxes = 0.2 + 0.5 * torch.rand(2, queries, 4, generator=generator).double()
    return LayerOutput(logits, boxes.requires_grad_())


def output(layout: DenoisingLayout | None = None) -> DetectorOutput:
    layout = layout if layout is not None else DenoisingLayout(groups=3, max_boxes=2)
    return DetectorOutput(
        decoder=stack(QUERIES, 0),
        encoder=layer(QUERIES, 10),
        denoising=stack(layout.num_denoising_queries, 20),
        layout=layout,
    )


def without_denoising() -> DetectorOutput:
    full = output()
    return DetectorOutput(full.decoder, full.encoder)


def criterion(**arguments) -> Criterion:
    return Criterion(HungarianMatcher(2.0, 5.0, 2.0), WEIGHTS, **arguments)


def given(counts=(2, 1), **arguments) -> tuple:
    return targets(counts, dtype=torch.float64, **arguments)


def test_every_loss_of_the_release_has_its_name():
    losses = criterion()(output(), given())
    expected = {base + suffix for base in ("loss_ce", "loss_bbox", "loss_giou") for suffix in SUFFIXES}
    assert losses.named.keys() == expected
    assert criterion()(without_denoising(), given()).named.keys() == {n for n in expected if "_dn" not in n}


@pytest.mark.parametrize("image_level", [False, True])
@pytest.mark.parametrize("masked", [(), ("bbox",), ("giou",), ("loss_ce",), ("bbox", "giou", "loss_ce")])
def test_the_table_of_weights(masked, image_level):
    part = criterion(interm_weight=0.25, ignored_on_image_level=masked)
    for base, weight in WEIGHTS.items():
        ignored = image_level and any(word in base for word in masked)
        for kind in ("decoder", "denoising", "encoder"):
            if kind == "encoder":
                expected = 0.25 * weight
            else:
                expected = 0.0 if ignored else weight
            assert part.loss_weight(base, kind, image_level) == expected, (base, kind)


def test_total_is_the_weighted_sum_of_what_is_named():
    part = criterion(interm_weight=0.25)
    losses = part(output(), given())
    expected = 0.0
    for base in ("loss_ce", "loss_bbox", "loss_giou"):
        for suffix in SUFFIXES:
            share = 0.25 if suffix == "_interm" else 1.0
            expected += share * WEIGHTS[base] * losses.named[base + suffix]
    assert losses.total.item() == pytest.approx(float(expected), rel=1e-12)
    assert losses.total.requires_grad
    assert not any(loss.requires_grad for loss in losses.named.values())


def test_masked_losses_are_reported_but_not_learnt_from():
    said = output()
    losses = criterion(ignored_on_image_level=("bbox", "giou"))(said, given(image_level=True))
    losses.total.backward()
    assert losses.named["loss_bbox"] > 0
    assert all(part.boxes_cxcywh.grad.abs().sum() == 0 for part in (said.decoder, said.denoising))
    assert said.encoder.boxes_cxcywh.grad.abs().sum() > 0
    assert said.decoder.classes.grad[-1].abs().sum() > 0


def slow_focal_loss(logits: Tensor, one_hot: Tensor, alpha: float = 0.25) -> float:
    """The sum of -a_t (1 - p_t)^2 log p_t (Lin et al. 2017)."""
    p_t = torch.where(one_hot > 0, logits.sigmoid(), 1 - logits.sigmoid())
    a_t = torch.where(one_hot > 0, alpha, 1 - alpha)
    return -(a_t * (1 - p_t) ** 2 * p_t.log()).sum().item()


def slow_losses(part: LayerOutput, pairs: list[tuple[int, int, int]], labels: Tensor, boxes: Tensor) -> dict:
    """Sums of one set of predictions, pair by pair: (image, query, target)."""
    one_hot = torch.zeros_like(part.logits)
    found = {"loss_bbox": 0.0, "loss_giou": 0.0}
    for image, query, number in pairs:
        one_hot[image, query, labels[number]] = 1
        ours, wanted = part.boxes_cxcywh[image, query][None], boxes[number][None]
        found["loss_bbox"] += l1_loss(ours, wanted).item()
        found["loss_giou"] += giou_loss(ours, wanted).item()
    return {**found, "loss_ce": slow_focal_loss(part.logits, one_hot)}


def test_every_group_is_its_sum_over_its_normaliser():
    said, wanted = output(), given()
    labels = torch.cat([t.labels for t in wanted])
    boxes = torch.cat([t.boxes_cxcywh for t in wanted])
    named = criterion()(said, wanted).named
    matcher = HungarianMatcher(2.0, 5.0, 2.0)

    def check(part, pairs, suffix, num_boxes):
        for base, value in slow_losses(part, pairs, labels, boxes).items():
            assert named[base + suffix].item() == pytest.approx(value / num_boxes), base + suffix

    for i, part in enumerate((*said.decoder, said.encoder)):
        m = matcher([LayerStack.of(part)], wanted, [False])[0]
        pairs = list(zip(m.image.tolist(), m.query.tolist(), m.target.tolist(), strict=True))
        check(part, pairs, ["_0", "_1", "", "_interm"][i], 3)
    pairs = [(0, g * 4 + n, n) for g in range(3) for n in range(2)] + [(1, g * 4, 2) for g in range(3)]
    for i, part in enumerate(said.denoising):
        check(part, pairs, ["_dn_0", "_dn_1", "_dn"][i], 3 * 3)


def test_matches_of_the_documented_denoising_example():
    found = denoising_matches(targets((2, 1)), DenoisingLayout(groups=2, max_boxes=2))
    triples = zip(found.image.tolist(), found.query.tolist(), found.target.tolist(), strict=True)
    assert set(triples) == {(0, 0, 0), (0, 1, 1), (0, 4, 0), (0, 5, 1), (1, 0, 2), (1, 4, 2)}
    assert len(found) == 6


def test_the_normaliser_counts_pairs_not_boxes_and_is_at_least_one():
    said = without_denoising()
    many = criterion()(said, given((9, 0))).named["loss_bbox"]
    matches = HungarianMatcher(2.0, 5.0, 2.0)([LayerStack.of(said.final)], given((9, 0)), [False])[0]
    boxes = torch.cat([t.boxes_cxcywh for t in given((9, 0))])[matches.target]
    ours = said.final.boxes_cxcywh[matches.image, matches.query]
    assert len(matches) == QUERIES
    assert many.item() == pytest.approx(l1_loss(ours, boxes).sum().item() / QUERIES)
    nothing = criterion()(said, given((0, 0))).named
    all_negative = slow_focal_loss(said.final.logits, torch.zeros_like(said.final.logits))
    assert nothing["loss_ce"].item() == pytest.approx(all_negative)
    assert nothing["loss_bbox"] == 0


def test_unused_denoising_slots_count_as_negatives():
    said, wanted = output(), given((2, 1))
    before = criterion()(said, wanted).named["loss_ce_dn"]
    with torch.no_grad():
        said.denoising.classes[-1, 1, 1] += 4  # image 1 has one box, slot 1 is unused
    after = criterion()(said, wanted).named["loss_ce_dn"]
    assert after > before


def test_an_encoder_of_one_class_is_taught_column_0():
    said, wanted = (
        without_denoising(),
        batch_of(target([[0.5, 0.5, 0.2, 0.2]], [4], dtype=torch.float64), given()[1]),
    )
    criterion(encoder_one_class=True)(said, wanted).total.backward()
    taught = (said.encoder.logits.grad < 0).nonzero()[:, 2]  # a negative gradient wants a higher score
    assert taught.tolist() == [0] * 2
    taught = (said.decoder.classes.grad[-1] < 0).nonzero()[:, 2]
    assert sorted(taught.tolist()) == sorted([4, int(wanted[1].labels)])


def taught_columns(sample: ClassSample) -> list[int]:
    return sorted(sample.columns[sample.valid].tolist())


def test_federated_columns_are_those_of_what_the_group_is_taught():
    """Column 0 for an encoder of one class; not the labels of boxes that found no query."""
    said, wanted = without_denoising(), given((2, 1))
    draw = FederatedClasses([1.0] * CLASSES, 1)
    part = criterion(federated=draw, encoder_one_class=True)
    matched = part.prediction_sets(said, wanted)[0]
    assert taught_columns(matched.sample[-1]) == [0]
    crowd = batch_of(
        target([[0.5, 0.5, 0.2, 0.2]] * 6 + [[0.1, 0.1, 0.01, 0.01]], [1] * 6 + [5], dtype=torch.float64)
    )
    one = LayerOutput(said.final.logits[:1], torch.full_like(said.final.boxes_cxcywh[:1], 0.5))
    found = next(iter(part.prediction_sets(DetectorOutput(LayerStack.of(one), one), crowd)[0]))
    assert taught_columns(found.sample) == sorted(set(found.labels.tolist()))
    assert len(found.labels) == QUERIES < 7


def test_federated_columns_alone_are_judged_each_call_its_own():
    said, wanted = output(), given((2, 1))
    draw = FederatedClasses([1.0] * CLASSES, 1)
    criterion(federated=draw)(said, wanted).total.backward()
    present = torch.cat([t.labels for t in wanted]).unique()
    assert 0 < len(present) < CLASSES
    for grad in (*said.decoder.classes.grad, said.encoder.logits.grad, *said.denoising.classes.grad):
        judged = grad.abs().sum((0, 1)).nonzero().flatten()
        assert judged.tolist() == present.tolist()


def judged_targets(judged: list[list[int]]) -> Targets:
    """Image 0 has boxes of classes 1 and 3, image 1 one of class 3; judged: columns of each image."""
    boxes = [[[0.3, 0.3, 0.2, 0.2], [0.6, 0.6, 0.3, 0.3]], [[0.5, 0.5, 0.2, 0.4]]]
    images = [target(*pair, dtype=torch.float64) for pair in zip(boxes, ([1, 3], [3]), strict=True)]
    masks = [torch.isin(torch.arange(CLASSES), torch.tensor(columns)) for columns in judged]
    return batch_of(*(replace(t, judged=mask) for t, mask in zip(images, masks, strict=True)))


JUDGED = [[0, 1, 5], [3]]


def taught_pairs(member: PredictionSet) -> set[tuple[int, int, int]]:
    """Image, query and class of every positive."""
    matches = member.matches
    return set(zip(matches.image.tolist(), matches.query.tolist(), member.labels.tolist(), strict=True))


@pytest.mark.parametrize("sampled", [False, True])
def test_where_a_class_was_not_judged_only_its_positives_count(sampled):
    """Each query and class by the definition, for every set; image 0 has a positive of class 3, unjudged."""
    said, wanted = output(), judged_targets(JUDGED)
    part = criterion(federated=FederatedClasses([1.0] * CLASSES, CLASSES) if sampled else None)
    losses = part(said, wanted)
    losses.total.backward()
    members = [member for sets in part.prediction_sets(said, wanted) for member in sets]
    gradients = [*said.decoder.classes.grad, said.encoder.logits.grad, *said.denoising.classes.grad]
    for member, grad in zip(members, gradients, strict=True):
        logits, positives = member.outputs.logits.detach(), taught_pairs(member)
        counted = {
            (image, query, column)
            for image, query, column in product(*map(range, logits.shape))
            if (image, query, column) in positives or column in JUDGED[image]
        }
        expected = sum(slow_focal_loss(logits[p], torch.tensor(float(p in positives))) for p in counted)
        loss = losses.named["loss_ce" + member.suffix].item()
        assert loss == pytest.approx(expected / float(member.num_boxes), rel=1e-12), member.suffix
        assert {tuple(place) for place in grad.nonzero().tolist()} == counted
    assert (0, 3) in {(image, column) for image, _, column in taught_pairs(members[0])}


def test_all_classes_judged_is_the_loss_without_judgement():
    wanted = judged_targets([list(range(CLASSES))] * 2)
    losses, plain = (criterion()(output(), t).named for t in (wanted, replace(wanted, judged=None)))
    assert losses == plain


def test_an_encoder_of_one_class_judges_objects_everywhere():
    wanted = judged_targets([[], []])
    part = criterion(encoder_one_class=True)
    losses, plain = (part(output(), t).named for t in (wanted, replace(wanted, judged=None)))
    assert losses["loss_ce_interm"] == plain["loss_ce_interm"]
    assert 0 < losses["loss_ce"] < plain["loss_ce"]


def test_classes_that_no_image_of_a_batch_judges_do_not_fill_up_the_sample():
    part = criterion(federated=FederatedClasses([1.0] * CLASSES, CLASSES))
    sets = part.prediction_sets(output(), judged_targets(JUDGED))
    for member in (member for group in sets for member in group):
        assert taught_columns(member.sample) == [0, 1, 3, 5]


class LastLayerLoss:
    """3 for the last decoder layer, nothing for the others."""

    weights: ClassVar = {"loss_extra": 0.5}

    def __init__(self):
        self.seen = []

    def __call__(self, predictions, targets, semantic):
        self.seen.append((predictions.kind, predictions.layer, predictions.suffix, semantic))
        return {"loss_extra": predictions.outputs.logits.sum() * 0 + 3.0} if predictions.is_last else {}


def test_further_losses_join_with_weight_suffix_and_their_prediction_sets():
    extra = LastLayerLoss()
    plain, losses = criterion()(output(), given()), criterion(extra_losses=[extra])(output(), given(), "seen")
    assert losses.named.keys() - plain.named.keys() == {"loss_extra", "loss_extra_dn"}
    assert losses.total.item() == pytest.approx(plain.total.item() + 2 * 0.5 * 3.0)
    assert [seen[:3] for seen in extra.seen] == [
        *(("decoder", 0, "_0"), ("decoder", 1, "_1"), ("decoder", 2, "")),
        ("encoder", 0, "_interm"),
        *(("denoising", 0, "_dn_0"), ("denoising", 1, "_dn_1"), ("denoising", 2, "_dn")),
    ]
    assert {semantic for *_, semantic in extra.seen} == {"seen"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_predictions_are_judged_in_float32(dtype):
    said = output()
    halves = [
        LayerOutput(x.logits.detach().to(dtype), x.boxes_cxcywh.detach().to(dtype))
        for x in (*said.decoder, said.encoder)
    ]
    half = DetectorOutput(LayerStack.of(halves[-2]), halves[-1])
    losses = criterion()(half, targets((2, 1)))
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in losses.named.values())


class LossWithoutWeight:
    weights: ClassVar = {}

    def __call__(self, predictions, targets, semantic):
        return {"loss_new": torch.zeros(())}


def test_a_loss_without_a_weight_is_an_error():
    with pytest.raises(KeyError, match="loss_new"):
        criterion(extra_losses=[LossWithoutWeight()])(output(), given())
