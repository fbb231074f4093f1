"""A rank whose batch has no boxes neither stops the others nor waits for ever, with the real detector."""

import math

import torch

from config import Config
from engine.build import build_settings, build_state, wrap_distributed
from engine.train_epoch import Task, TrainStep
from models.dino.build import build_criterion
from tests.processes import run_on_ranks
from tests.test_two_ranks import CLASSES, CONFIG, make_model
from util import distributed
from util.structures import PaddedImages, Target, Targets

# Boxes of (rank 0, rank 1) in every step.
BOXES = [(2, 1), (0, 2), (2, 0), (0, 0)]


def train_steps(gather: bool) -> tuple[list[float], list[float]]:
    """Total losses, and the sum of every parameter at the end."""
    config = Config.from_dict(
        {**CONFIG, "use_fed_loss": True, "fed_num_sample_cats": 3, "fed_gather": gather}
    )
    device = torch.device("cpu")
    model = make_model(config)
    state = build_state(config, model, len(BOXES), device)
    task = Task(wrap_distributed(model, device), build_criterion(config, [1] * CLASSES))
    stepper = TrainStep(task, state, build_settings(config, device), len(BOXES))
    model.train()
    generator = torch.Generator().manual_seed(distributed.rank())
    totals = []
    for step, counts in enumerate(BOXES):
        count = counts[distributed.rank()]
        boxes = torch.rand((count, 4), generator=generator) * 0.3 + 0.25
        labels = torch.randint(CLASSES, (count,), generator=generator)
        images = PaddedImages.from_list([torch.randn((3, 64, 64), generator=generator)])
        targets = Targets.from_list([Target(boxes, labels, step, (64, 64), (64, 64))])
        losses = stepper(step, (images, targets))
        totals.append(losses["total"].item())
    return totals, [parameter.detach().double().sum().item() for parameter in model.parameters()]


def both() -> list[tuple[list[float], list[float]]]:
    return [train_steps(gather) for gather in (False, True)]


def test_ranks_without_boxes_keep_step():
    first, second = run_on_ranks(2, both)
    for (totals_0, weights_0), (totals_1, weights_1) in zip(first, second, strict=True):
        assert all(math.isfinite(total) for total in totals_0 + totals_1)
        # Without a box only the class scores of the background are left, on that rank alone.
        assert totals_0[1] < 1 < totals_1[1]
        assert totals_1[2] < 1 < totals_0[2]
        assert weights_0 == weights_1
