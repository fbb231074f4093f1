"""The training loop."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import nn

from engine.device import autocast
from models.richsem.text_embeddings import PROMPTS, Template
from util.precision import autocast_dtype

from .canvas import CanvasBatch, balanced_order, draw_batch
from .images import ImageLevelTree
from .loss import contrastive_loss, spread_loss, word_loss
from .model import MiniClipSize, build, encode_regions, normalise
from .muon import Muon
from .trunk import load_trunk

# As in CLIP's paper.
MAX_SCALE = 100.0


@dataclass(frozen=True)
class TrainSettings:
    """Regions come `canvases` canvases at a time; `tile`: least and most pixels of an image on them.

    trunk_lr: of a pretrained trunk.
    """

    steps: int = 500
    canvases: int = 5
    canvas_side: int = 288
    tile: tuple[float, float] = (50, 190)
    lr: float = 2e-3
    matrix_lr: float = 0.02
    trunk_lr: float = 2e-4
    weight_decay: float = 0.1
    warmup: int = 40
    spread: float = 0.1
    words: float = 0.5
    most_texts: int = 256
    seed: int = 0
    amp: bool = True


def optimizers(model: CLIP, settings: TrainSettings, pretrained: bool = False) -> list[torch.optim.Optimizer]:
    """Muon for matrices and convolutions; AdamW, without decay, for the vocabulary and all vectors.

    pretrained: the trunk is; AdamW then moves it slowly, as every step of Muon is as large as its rate.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    trunk: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and "embedding" not in name
        if pretrained and name.startswith("visual.trunk."):
            trunk.append(parameter)
        else:
            (matrices if is_matrix else others).append(parameter)
    groups = [{"params": others, "lr": settings.lr}, {"params": trunk, "lr": settings.trunk_lr}]
    return [
        Muon(matrices, settings.matrix_lr, weight_decay=settings.weight_decay),
        torch.optim.AdamW([g for g in groups if g["params"]], betas=(0.9, 0.98), weight_decay=0.0),
    ]


def encode_names(
    model: CLIP, names: list[str], templates: list[Template], tokenizer: Callable
) -> torch.Tensor:
    """One caption for each name -> (T, E) unit vectors."""
    tokens = tokenizer([template(name) for template, name in zip(templates, names, strict=True)])
    return F.normalize(model.encode_text(tokens.to(model.logit_scale.device)), dim=-1)


def train(
    tree: ImageLevelTree,
    size: MiniClipSize,
    settings: TrainSettings,
    device: torch.device,
    report: Callable = print,
    trunk_weights: Path | None = None,
) -> CLIP:
    """Trains a new model on `tree.train` and returns it in evaluation mode.

    trunk_weights: a file of the weights that `size.trunk` starts from; its batch norms keep their statistics.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    model = build(size)
    if trunk_weights:
        load_trunk(model.visual, size.trunk, trunk_weights)
    model.to(device, memory_format=torch.channels_last).train()
    if trunk_weights:
        model.visual.trunk.eval()
    tokenizer = open_clip.SimpleTokenizer(context_length=size.context_length)
    steppers = optimizers(model, settings, pretrained=trunk_weights is not None)
    rates = [torch.optim.lr_scheduler.LambdaLR(o, partial(_schedule, settings=settings)) for o in steppers]
    order = balanced_order(tree.train.labels, rng)
    start, losses = time.perf_counter(), []
    for step in range(settings.steps):
        batch = draw_batch(tree.train, order, settings.canvases, settings.canvas_side, settings.tile, rng)
        loss = _loss(model, tree.names, batch, tokenizer, settings, rng)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper, rate in zip(steppers, rates, strict=True):
            stepper.step()
            rate.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(MAX_SCALE))
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == settings.steps:
            seconds = time.perf_counter() - start
            report(
                f"step {step + 1}/{settings.steps}  loss {np.mean(losses[-50:]):.3f}  "
                f"scale {model.logit_scale.exp().item():.1f}  {seconds:.0f} s"
            )
    return model.eval()


def _schedule(step: int, settings: TrainSettings) -> float:
    """Linear warm-up, then a half cosine to 1 % of the rate."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def _loss(
    model: CLIP,
    names: tuple[str, ...],
    batch: CanvasBatch,
    tokenizer: Callable,
    settings: TrainSettings,
    rng: np.random.Generator,
) -> torch.Tensor:
    device = model.logit_scale.device
    # The classes of the batch first, then others: names that no region shows are negatives.
    present, labels = np.unique(batch.labels, return_inverse=True)
    absent = rng.permutation(np.setdiff1d(np.arange(len(names)), present))
    rows = np.concatenate((present, absent))[: max(settings.most_texts, len(present))]
    templates = [PROMPTS[i] for i in rng.integers(len(PROMPTS), size=len(rows))]
    with autocast(device, autocast_dtype("bfloat16", device) if settings.amp else None):
        regions = torch.from_numpy(batch.regions).to(device)
        image = encode_regions(model.visual, normalise(torch.from_numpy(batch.pixels).to(device)), regions)
    image = F.normalize(image.float(), dim=-1)
    text = encode_names(model, [names[i] for i in rows], templates, tokenizer)
    text_index = torch.from_numpy(labels.astype(np.int64)).to(device)
    scale = model.logit_scale.exp()
    loss = contrastive_loss(image, text, text_index, scale) + settings.spread * spread_loss(text)
    if settings.words:
        in_name = [set(names[i].split("_")) for i in rows]
        words = sorted(set().union(*(in_name[i] for i in text_index.unique().tolist())))
        belongs = torch.tensor([[w in n for w in words] for n in in_name]).to(device)[text_index]
        templates = [PROMPTS[i] for i in rng.integers(len(PROMPTS), size=len(words))]
        encoded = encode_names(model, words, templates, tokenizer).float()
        loss = loss + settings.words * word_loss(image, encoded, belongs, scale)
    return loss
