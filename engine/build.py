"""The engine's parts from a config. The only file of the engine that sees one."""

import logging
from dataclasses import replace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from config import Config
from engine.accumulate import fix_bucket_order
from engine.average import WeightAverage
from engine.early_stopping import EarlyStopping
from engine.freeze import freeze
from engine.optimizer import GroupRules, build_adamw, parameter_groups
from engine.schedule import (
    Factor,
    cosine_factor,
    multi_step_factor,
    one_cycle_factor,
    step_factor,
    with_warmup,
)
from engine.settings import TrainSettings
from engine.state import TrainingState
from util import distributed
from util.errors import UserError
from util.precision import choose_precision

_log = logging.getLogger(__name__)

# `--debug` stops an epoch, and an evaluation, after this many batches (as the official flag does).
DEBUG_ITERATIONS = 15


def build_settings(
    config: Config, device: torch.device, debug: bool = False, batches: int = 0
) -> TrainSettings:
    """What the loops need to know. Says in the log which precision that is, and why.

    batches: of an epoch, 0 where nothing is trained.
    """
    precision = choose_precision(config.amp, config.amp_dtype, device)
    _log.info("precision: %s", precision)
    settings = TrainSettings(
        epochs=config.epochs,
        device=device,
        autocast_dtype=precision.dtype,
        accumulate_steps=config.accumulate_steps,
        clip_max_norm=config.clip_max_norm,
        image_level_weight=config.image_level_weight,
        ema_epoch=config.ema_epoch,
        log_interval=config.log_interval,
        eval_interval=config.eval_interval,
        save_epochs=config.save_checkpoint_interval,
        save_steps=config.save_interval,
        save_minutes=config.save_minutes,
        keep_checkpoints=config.keep_checkpoints,
        on_nonfinite=config.on_nonfinite,
        max_iterations=DEBUG_ITERATIONS if debug else 0,
        trackers=config.tracker,
    )
    if not (config.max_steps and batches):
        return settings
    steps = _steps_per_epoch(config, settings.iterations(batches))
    return replace(settings, epochs=-(-config.max_steps // steps), max_steps=config.max_steps)


def _steps_per_epoch(config: Config, iterations: int) -> int:
    if iterations < 1:
        raise UserError("the training set gives not one batch: fewer images than batch_size x ranks")
    return -(-iterations // config.accumulate_steps)


def build_state(config: Config, model: nn.Module, iterations: int, device: torch.device) -> TrainingState:
    """Optimizer, schedule, scaler and average around `model`, which is on its device.

    Freezes what the config's `freeze` names, so it comes before `wrap_distributed`.
    iterations: batches of an epoch. Raises UserError where there is none, and as `freeze` does.
    """
    freeze(model, config.freeze)
    rules = GroupRules(
        kind=config.param_dict_type,
        lr=config.lr,
        lr_backbone=config.lr_backbone,
        weight_decay=config.weight_decay,
        backbone_names=_backbone_names(config),
        linear_proj_names=tuple(config.lr_linear_proj_names),
        linear_proj_mult=config.lr_linear_proj_mult,
        offsets_mult=config.lr_offsets_mult,
    )
    groups = parameter_groups(model.named_parameters(), rules)
    optimizer = build_adamw(groups, (config.adam_beta1, config.adam_beta2), config.shard_optimizer)
    sixteen_bit = choose_precision(config.amp, config.amp_dtype, device).dtype
    steps_per_epoch = _steps_per_epoch(config, iterations)
    return TrainingState(
        model=model,
        optimizer=optimizer,
        schedule=LambdaLR(optimizer, build_factor(config, steps_per_epoch)),
        steps_per_epoch=steps_per_epoch,
        accumulate_steps=config.accumulate_steps,
        scaler=torch.amp.GradScaler(device.type, enabled=sixteen_bit == torch.float16),
        ema=WeightAverage(model, config.ema_decay, config.ema_warmup) if config.use_ema else None,
        # The config counts AP in points, as tables show it.
        early_stopping=EarlyStopping(config.early_stop_patience, config.early_stop_min_delta / 100),
    )


def build_factor(config: Config, steps_per_epoch: int) -> Factor:
    """The schedule that the config chooses; stepwise without a choice, as in the official code."""
    total = config.max_steps or config.epochs * steps_per_epoch
    if config.onecyclelr:
        return one_cycle_factor(total)
    if config.cosine_lr:
        factor = cosine_factor(total, config.cosine_final, config.warmup_iters)
    elif config.multi_step_lr:
        factor = multi_step_factor(steps_per_epoch, config.lr_drop_list)
    else:
        factor = step_factor(steps_per_epoch, config.lr_drop)
    return with_warmup(factor, config.warmup_iters)


def wrap_distributed(model: nn.Module, device: torch.device) -> nn.Module:
    """The model in DistributedDataParallel where there are several ranks.

    Buffers are not broadcast at every step (text embeddings are large and constant); the trainer does it
    once an epoch. Unused parameters are dealt with in `engine.accumulate`. Gradients are views of what the
    ranks exchange, or each would be in memory twice.
    """
    if not distributed.is_distributed():
        return model
    ids = [device.index] if device.type == "cuda" else None
    wrapped = DistributedDataParallel(
        model, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
    )
    fix_bucket_order(wrapped)
    return wrapped


def _backbone_names(config: Config) -> tuple[str, ...]:
    """The pretrained part of the backbone: the release's 'backbone.0', without the new pyramid of a ViT."""
    if config.param_dict_type != "ddetr_in_mmdet":
        return ("backbone.body",)
    return tuple("backbone.body" if name == "backbone.0" else name for name in config.lr_backbone_names)
