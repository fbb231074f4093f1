"""How often a teacher's nearest text is the class of a box: which boxes, and whether its two sides match."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from jaxtyping import Int64
from torch import Tensor

from models.richsem.classifier import TextEmbeddings
from models.richsem.teacher import RegionTeacher
from util.errors import UserError
from util.structures import Batch, PaddedImages, Targets

logger = logging.getLogger(__name__)

# Of the largest logit: differences that say nothing in float32.
ROUNDING = 1e-6


@torch.no_grad()
def own_class_ranks(
    teacher: RegionTeacher, text: TextEmbeddings, images: PaddedImages, targets: Targets
) -> Int64[Tensor, " N"]:
    """How many classes are as near to what the teacher sees in each box as its own: (N,), 0 = named right.

    images: as the loader gives them, on the device of teacher and text.
    """
    logits = text.logits(teacher(images.normalised(), targets).ground_truth)
    own = logits.gather(1, targets.labels[:, None])
    # Classes that are all as near, but for rounding, or not a number, are no right answer.
    rounding = ROUNDING * logits.abs().amax(1, keepdim=True)
    return (~(logits < own - rounding)).sum(1) - 1


def check_sides(
    teacher: RegionTeacher,
    text: TextEmbeddings,
    batches: Iterable[Batch],
    device: torch.device | str,
    pair: str,
) -> None:
    """Logs the share of the labelled images that the teacher names right.

    pair: what the two sides are, for messages. Nothing is checked without images, or with a single class.
    Raises UserError where the share is below chance.
    """
    ranks = [
        own_class_ranks(teacher, text, images.to(device), targets.to(device)).cpu()
        for images, targets in batches
    ]
    classes = len(text.raw)
    if not ranks or classes < 2:
        return
    right = torch.cat(ranks) == 0
    share = (
        f"{int(right.sum())} of {len(right)} image-level images right (chance: {len(right) / classes:.1f})"
    )
    if right.double().mean() < 1 / classes:
        raise UserError(
            f"{pair}: names {share}: its image and text sides do not match, or it does not know these "
            "classes; tools/check_teacher.py shows more, check_teacher=False trains all the same"
        )
    logger.info("the teacher names %s", share)
