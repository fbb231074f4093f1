"""Two ranks train the real model as one process with the same total batch does."""

import copy

import pytest
import torch
from timm.layers import freeze_batch_norm_2d

from config import Config
from engine.build import build_settings, build_state, wrap_distributed
from engine.train_epoch import Task, TrainStep
from models.dino.build import build_criterion, build_dino
from tests.processes import run_on_ranks
from util import distributed
from util.structures import PaddedImages, Target, Targets

CLASSES, STEPS, BATCH = 7, 5, 4
CONFIG = {
    "use_language": False,
    "use_visual_distill": False,
    "use_fed_loss": False,
    "amp": False,
    "backbone": "resnet10t",
    "backbone_weights": "none",
    "backbone_args": {"channels": [8, 16, 16, 32], "stem_width": 8},
    "num_feature_levels": 3,
    # Two channels to a group of the neck: with one, its biases have no gradient but rounding errors.
    "hidden_dim": 64,
    "nheads": 2,
    "dim_feedforward": 32,
    "enc_layers": 1,
    "dec_layers": 2,
    "num_queries": 12,
    "dn_number": 6,
    "dn_box_noise_scale": 0.0,
    "dn_label_noise_ratio": 0.0,
    "lr": 1e-4,
    "epochs": 1,
}


def make_model(config):
    """The same weights in every process. Statistics of batch norm would depend on the split."""
    torch.manual_seed(0)
    model = build_dino(config, CLASSES)
    model.backbone.body = freeze_batch_norm_2d(model.backbone.body)
    return model


def make_batches() -> list[list[tuple[torch.Tensor, Target]]]:
    """Images of one size; the two halves of a batch have equal largest box counts."""
    generator = torch.Generator().manual_seed(1)
    batches = []
    for _ in range(STEPS):
        batch = []
        for i, count in enumerate((3, 1, 2, 3)):
            boxes = torch.rand((count, 4), generator=generator) * 0.3 + 0.25
            labels = torch.randint(CLASSES, (count,), generator=generator)
            image = torch.randn((3, 64, 64), generator=generator)
            batch.append((image, Target(boxes, labels, i, (64, 64), (64, 64))))
        batches.append(batch)
    return batches


def train_steps(values: dict) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Mean losses over ranks of every step, and the weights after the last."""
    config = Config.from_dict(values)
    model = make_model(config)
    device = torch.device("cpu")
    state = build_state(config, model, STEPS, device)
    criterion = build_criterion(config, [1] * CLASSES)
    task = Task(wrap_distributed(model, device), criterion)
    stepper = TrainStep(task, state, build_settings(config, device), STEPS)
    model.train()
    rank, ranks = distributed.rank(), distributed.world_size()
    losses = []
    for number, batch in enumerate(make_batches()):
        share = batch[rank * BATCH // ranks : (rank + 1) * BATCH // ranks]
        images = PaddedImages.from_list([image for image, _ in share])
        named = stepper(number, (images, Targets.from_list([target for _, target in share])))
        losses.append(float(distributed.all_reduce_mean(named["total"])))
    return losses, copy.deepcopy(model.state_dict())


@pytest.mark.parametrize("use_checkpoint", [False, True])
def test_two_ranks_train_as_one(use_checkpoint):
    losses, weights = train_steps(CONFIG)
    two = run_on_ranks(2, train_steps, {**CONFIG, "use_checkpoint": use_checkpoint})
    for rank_losses, rank_weights in two:
        assert rank_losses == pytest.approx(losses, rel=1e-4)
        for name, weight in weights.items():
            torch.testing.assert_close(rank_weights[name], weight, rtol=1e-4, atol=1e-4)
    moved = make_model(Config.from_dict(CONFIG)).state_dict()
    assert any(not torch.allclose(moved[n], w, atol=1e-4) for n, w in weights.items()), "nothing was learnt"


def federated_columns(labels: list[int], gather: bool) -> list[int]:
    from models.dino.federated import FederatedClasses

    torch.manual_seed(distributed.rank())
    federated = FederatedClasses([1.0] * 50, number=8, gather=gather)
    mine = torch.tensor([labels[distributed.rank() :: 2]])
    judged = federated(mine, mine.numel())
    return judged.columns[judged.valid].tolist()


def test_federated_classes_are_gathered_over_ranks_by_option():
    labels = [3, 7, 11, 2]
    first, second = run_on_ranks(2, federated_columns, labels, True)
    assert first == second
    assert set(labels) <= set(first)
    first, second = run_on_ranks(2, federated_columns, labels, False)
    assert {3, 11} <= set(first)
    assert {7, 2} <= set(second)
    assert first != second
