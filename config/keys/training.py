"""Keys of the training loop: optimiser, schedule, precision, averages, intervals."""

from __future__ import annotations

from dataclasses import dataclass

from config.values import config_field


@dataclass(frozen=True, kw_only=True)
class TrainingKeys:
    """AdamW, its parameter groups and schedules, and how often things happen."""

    epochs: int = config_field(24, "Passes over the box-annotated sampler", minimum=1)
    lr: float = config_field(1e-4, "Learning rate", minimum=0)
    lr_backbone: float = config_field(1e-5, "Learning rate of the backbone", minimum=0)
    weight_decay: float = config_field(1e-4, "Decoupled weight decay", minimum=0)
    clip_max_norm: float = config_field(0.1, "Gradient norm is clipped to this; 0 = not clipped", minimum=0)
    adam_beta1: float = config_field(0.9, "First beta of AdamW", minimum=0, maximum=1, official=False)
    adam_beta2: float = config_field(0.999, "Second beta of AdamW", minimum=0, maximum=1, official=False)
    accumulate_steps: int = config_field(
        1, "Batches whose gradients are added up per step", minimum=1, official=False
    )

    param_dict_type: str = config_field(
        "default",
        "Parameter groups: `default` backbone and rest; `ddetr_in_mmdet` also slows `lr_linear_proj_names`; "
        "`large_wd` takes weight decay off norms and biases",
        choices=("default", "ddetr_in_mmdet", "large_wd"),
    )
    lr_backbone_names: tuple[str, ...] = config_field(
        ("backbone.body",),
        "Parts of parameter names that train at `lr_backbone` (the official `backbone.0` too)",
    )
    lr_linear_proj_names: tuple[str, ...] = config_field(
        ("reference_points", "sampling_offsets"),
        "Parts of parameter names that are slowed (`ddetr_in_mmdet`)",
    )
    lr_linear_proj_mult: float = config_field(0.1, "Their factor on `lr`", minimum=0)
    lr_offsets_mult: float = config_field(
        1.0,
        "Factor on the learning rate of `sampling_offsets`, with any `param_dict_type`",
        minimum=0,
        official=False,
    )

    lr_drop: int = config_field(
        20, "Epochs between tenfold drops of the learning rate (the default schedule)", minimum=1
    )
    multi_step_lr: bool = config_field(False, "Drop tenfold at each epoch of `lr_drop_list` instead")
    lr_drop_list: tuple[int, ...] = config_field(
        (33, 45), "Epochs of the multi-step schedule, ascending", minimum=0
    )
    onecyclelr: bool = config_field(
        False, "One-cycle schedule instead, stepped per iteration (rises for 20 %)"
    )
    cosine_lr: bool = config_field(False, "Cosine schedule instead, stepped per iteration", official=False)
    cosine_final: float = config_field(
        0.05, "Share of the learning rate that the cosine ends at", minimum=0, maximum=1, official=False
    )
    warmup_iters: int = config_field(
        0, "Steps of linear warm-up; not with `onecyclelr`", minimum=0, official=False
    )

    amp: bool = config_field(False, "Automatic mixed precision (the flag `--amp` sets it)", official=False)
    amp_dtype: str = config_field(
        "bfloat16",
        "Its 16-bit type; a CPU that only emulates bfloat16 computes in float32",
        choices=("bfloat16", "float16"),
        official=False,
    )
    channels_last: bool = config_field(
        False, "Channels-last memory format in backbone and teacher", official=False
    )

    use_ema: bool = config_field(False, "Keep a moving average of the weights and evaluate it")
    ema_decay: float = config_field(0.9997, "Its decay per step", minimum=0, maximum=1)
    ema_epoch: int = config_field(0, "First epoch of the average", minimum=0)
    ema_warmup: bool = config_field(False, "Ramp the decay as min(decay, (1 + t) / (10 + t))", official=False)

    eval_interval: int = config_field(
        1, "Epochs between evaluations; the last epoch is always evaluated", minimum=1
    )
    eval_batch_size: int = config_field(
        1, "Images per process and step in evaluation", minimum=1, official=False
    )
    save_checkpoint_interval: int = config_field(1, "Epochs between writes of `checkpoint.pth`", minimum=1)
    log_interval: int = config_field(50, "Steps between log lines", minimum=1, official=False)
