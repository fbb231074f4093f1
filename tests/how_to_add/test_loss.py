"""A loss: the printed one sees the queries, carries its weight, and shows in the console line."""

import pytest
import torch

from engine.run_log import loss_groups
from models.dino.criterion import Criterion
from models.dino.matcher import HungarianMatcher
from tests.how_to_add.example import run_example
from tests.models.tiny import build, make_images, targets, tiny_config


def test_the_example_adds_a_loss_on_queries(tmp_path):
    loss = run_example("A loss")["QueryNormLoss"](weight=0.3)
    parts = build(tiny_config(use_visual_distill=False), tmp_path)
    output, given = parts.model(make_images(), targets()), targets()
    weights = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
    plain = Criterion(HungarianMatcher(2, 5, 2), weights)(output, given)
    found = Criterion(HungarianMatcher(2, 5, 2), weights, extra_losses=[loss])(output, given)
    assert found.named.keys() - plain.named.keys() == {"loss_query_norm", "loss_query_norm_dn"}
    expected = (output.final.hidden.norm(dim=-1) - 1).square().mean()
    assert found.named["loss_query_norm"].item() == pytest.approx(expected.item())
    added = 0.3 * (found.named["loss_query_norm"] + found.named["loss_query_norm_dn"])
    assert (found.total - plain.total).item() == pytest.approx(added.item(), rel=1e-3)
    gradient = torch.autograd.grad(expected, list(parts.model.decoder.norm.parameters()))
    assert any(g.abs().sum() > 0 for g in gradient)


def test_the_console_line_shows_losses_that_it_does_not_know():
    losses = {"loss_ce": 1.0, "loss_query_norm": 2.0, "loss_query_norm_0": 3.0, "loss_query_norm_dn": 4.0}
    assert loss_groups(losses) == {"class": 1.0, "denoising": 4.0, "query_norm": 5.0}
