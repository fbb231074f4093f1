import pytest
import torch

from models.dino.build import build_criterion, build_dino
from models.dino.heads import ClassifierLabelEmbedding, LinearClassifier
from tests.models.tiny import COUNTS, NAMES, baseline_config, batch_of, make_images, target, targets


def test_the_config_reaches_every_part():
    config = baseline_config(
        enc_layers=3, dec_layers=2, nheads=2, dim_feedforward=40, dropout=0.25, num_queries=9,
        pe_temperatureH=17, pe_temperatureW=13, dn_number=5, dn_label_noise_ratio=0.3,
        dn_box_noise_scale=0.7, num_feature_levels=5, enc_n_points=3, dec_n_points=1,
    )  # fmt: skip
    model = build_dino(config, 7)
    assert (len(model.encoder.layers), len(model.decoder.layers)) == (3, 2)
    attention = model.encoder.layers[0].self_attn
    assert (attention.heads, attention.levels, attention.points) == (2, 5, 3)
    assert model.decoder.layers[0].cross_attn.points == 1
    assert model.decoder.layers[0].self_attn.num_heads == 2
    assert model.encoder.layers[0].ffn.linear1.out_features == 40
    assert model.encoder.layers[0].dropout.p == model.decoder.layers[0].dropout.p == 0.25
    position = model.encoder.position
    assert (position.temperature_h, position.temperature_w) == (17, 13)
    assert model.query_selection.num_queries == 9
    denoising = model.denoising
    assert (denoising.number, denoising.label_noise, denoising.box_noise) == (5, 0.3, 0.7)
    assert denoising.num_classes == 7
    assert len(model.neck.projections) == 5


def test_the_baseline_is_linear_and_its_denoising_reads_the_classifiers_rows():
    model = build_dino(baseline_config(), 7)
    assert isinstance(model.head.classifier, LinearClassifier)
    assert isinstance(model.query_selection.classifier, LinearClassifier)
    assert model.query_selection.classifier is not model.head.classifier
    assert isinstance(model.denoising.label_embedding, ClassifierLabelEmbedding)
    assert model.denoising.label_embedding.classifier is model.head.classifier


def test_another_encoder_classifier_takes_its_place():
    mine = LinearClassifier(32, 7)
    assert build_dino(baseline_config(), 7, encoder_classifier=mine).query_selection.classifier is mine


def test_the_config_reaches_the_criterion():
    config = baseline_config(
        cls_loss_coef=1.5, bbox_loss_coef=4.0, giou_loss_coef=3.0,
        interm_loss_coef=0.5, set_cost_class=1.0, set_cost_bbox=2.0, set_cost_giou=3.0,
        focal_alpha=0.4, fed_num_sample_cats=3, enc_cls_agn=True, mask_bbox=True, mask_labels=True,
    )  # fmt: skip
    criterion = build_criterion(config, COUNTS)
    assert criterion.weights == {"loss_ce": 1.5, "loss_bbox": 4.0, "loss_giou": 3.0}
    matcher = criterion.matcher
    costs = (matcher.class_weight, matcher.box_weight, matcher.giou_weight, matcher.alpha)
    assert costs == (1.0, 2.0, 3.0, 0.4)
    assert (criterion.interm_weight, criterion.alpha, criterion.encoder_one_class) == (0.5, 0.4, True)
    assert criterion.ignored_on_image_level == ("bbox", "loss_ce")
    assert criterion.federated.number == 3 and not criterion.federated.gather
    assert criterion.federated.weights.tolist() == pytest.approx([c**0.5 for c in COUNTS])


def test_without_the_federated_loss_all_classes_are_judged():
    assert build_criterion(baseline_config(use_fed_loss=False), COUNTS).federated is None


@pytest.mark.parametrize("config", [{}, {"enc_cls_agn": True, "use_fed_loss": False}, {"use_dn": False}])
@pytest.mark.parametrize("counts", [(2, 1), (0, 0)])
def test_every_parameter_has_a_gradient(config, counts):
    """Ranks with and without boxes exchange the same gradients."""
    torch.manual_seed(0)
    config = baseline_config(**config)
    model, criterion = build_dino(config, len(NAMES)).train(), build_criterion(config, COUNTS)
    given = targets(counts)
    criterion(model(make_images(), given), given).total.backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_it_learns_one_image():
    """Twenty steps on one image find its one thing better than before."""
    torch.manual_seed(0)
    config = baseline_config(dn_box_noise_scale=0.4)
    model, criterion = build_dino(config, len(NAMES)).train(), build_criterion(config, COUNTS)
    shown, given = make_images(((64, 64),) * 2), batch_of(*(target([[0.4, 0.6, 0.3, 0.2]], [3]),) * 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for _ in range(20):
        losses = criterion(model(shown, given), given)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append(losses.named["loss_bbox"].item())
    assert min(history[-3:]) < 0.5 * history[0]
