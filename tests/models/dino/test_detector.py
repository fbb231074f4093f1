import dataclasses

import pytest
import torch

from models.dino.build import build_dino
from models.dino.output import DetectorOutput, LayerOutput
from models.dino.query_selection import proposal_anchors
from tests.models.tiny import NAMES, baseline_config, make_images, targets
from util.structures import PaddedImages


def detector(**changes):
    torch.manual_seed(0)
    return build_dino(baseline_config(**changes), len(NAMES)).double()


def images(**arguments) -> PaddedImages:
    return make_images(dtype=torch.float64, **arguments)


def given(counts=(2, 1)):
    return targets(counts, dtype=torch.float64)


def test_training_and_evaluation_speak_one_type():
    model = detector()
    trained = model.train()(images(), given())
    judged = model.eval()(images(), given())
    assert type(trained) is type(judged) is DetectorOutput
    assert (len(trained.decoder), len(trained.denoising)) == (2, 2)
    assert (trained.layout.groups, trained.layout.max_boxes) == (3, 2)
    assert (len(judged.decoder), judged.denoising, judged.layout) == (1, None, None)
    for output in (trained, judged):
        for layer in (*output.decoder, output.encoder):
            assert isinstance(layer, LayerOutput)
            assert layer.logits.shape == (2, 12, len(NAMES)) and layer.boxes_cxcywh.shape == (2, 12, 4)
    assert trained.denoising[0].logits.shape == (2, 12, len(NAMES))


def test_every_box_lies_in_0_to_1():
    output = detector().eval()(images())
    assert output.final.boxes_cxcywh.min() >= 0 and output.final.boxes_cxcywh.max() <= 1


def test_evaluation_repeats_itself_and_needs_no_targets():
    model = detector().eval()
    first, second = model(images()), model(images(), given())
    assert torch.equal(first.final.logits, second.final.logits)
    assert torch.equal(first.final.boxes_cxcywh, second.final.boxes_cxcywh)


def test_denoising_does_not_reach_the_matching_queries():
    """Ground truth must not leak: with other targets the matching queries say the same."""
    model = detector().train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    with_dn, without = model(images(), given((3, 1))), model(images(), None)
    assert without.layout is None and without.denoising is None
    for ours, theirs in zip(with_dn.decoder, without.decoder, strict=True):
        assert torch.allclose(ours.logits, theirs.logits, atol=1e-10)
        assert torch.allclose(ours.boxes_cxcywh, theirs.boxes_cxcywh, atol=1e-10)


def test_encoder_and_proposals_do_not_see_padding():
    """An image's maps alone, and beside those of a larger image, give the same tokens and proposals.

    Sizes are multiples of the strides. Backbone and group norm do see padding, and so does the decoder,
    whose query positions are scaled by the valid share of the first level (release behaviour).
    """
    model = detector(num_feature_levels=3).eval()
    alone, beside = images(sizes=((64, 64),)), images(sizes=((64, 64), (128, 192)))
    maps = model.neck(model.backbone(alone.tensor))
    padded = [torch.full((2, 32, 16 >> i, 24 >> i), 7.0, dtype=torch.float64) for i in range(3)]
    places = []
    for level, (large, small) in enumerate(zip(padded, maps, strict=True)):
        large[0, :, : small.shape[2], : small.shape[3]] = small[0]
        numbers = sum(p[0, 0].numel() for p in padded[:level]) + torch.arange(large[0, 0].numel())
        places.append(numbers.view(large.shape[2:])[: small.shape[2], : small.shape[3]].flatten())
    places = torch.cat(places)
    first, second = model.encoder(maps, alone.mask), model.encoder(padded, beside.mask)
    assert torch.allclose(first.tokens[0], second.tokens[0, places], atol=1e-10)
    for ours, theirs in zip(proposal_anchors(first), proposal_anchors(second), strict=True):
        assert torch.allclose(ours[0], theirs[0, places])


def test_references_entering_the_last_layer_are_reported():
    output = detector().train()(images(), given())
    assert output.decoder[0].reference_boxes.shape == (2, 12, 4)
    assert torch.equal(output.decoder[0].reference_boxes, output.encoder.boxes_cxcywh.detach())
    # A fresh box head moves nothing.
    assert torch.allclose(output.decoder[1].reference_boxes, output.decoder[0].boxes_cxcywh.detach())


def test_what_goes_in_is_not_written_to():
    model, shown, wanted = detector().train(), images(), given()
    before = shown.tensor.clone(), [t.boxes_cxcywh.clone() for t in wanted]
    model(shown, wanted)
    assert torch.equal(shown.tensor, before[0])
    assert all(torch.equal(t.boxes_cxcywh, b) for t, b in zip(wanted, before[1], strict=True))
    with pytest.raises(dataclasses.FrozenInstanceError):
        wanted[0].labels = None


def test_without_denoising():
    model = detector(use_dn=False).train()
    output = model(images(), given())
    assert output.layout is None and output.denoising is None
    assert not any(name.startswith("denoising") for name in model.state_dict())


def test_optimisable_parameters_are_those_that_train():
    model = detector()
    model.backbone.body.conv1.requires_grad_(False)
    held = {id(p) for p in model.parameters() if p.requires_grad}
    expected = {id(p) for n, p in model.named_parameters() if not n.startswith("backbone.body.conv1.")}
    assert held == expected


def test_more_queries_than_tokens():
    output = detector(num_queries=500).train()(images(), given())
    # 80 x 96 pixels at strides 8, 16, 32 and 64.
    assert output.final.logits.shape[1] == 10 * 12 + 5 * 6 + 3 * 3 + 2 * 2
