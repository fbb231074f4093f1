"""Keys of the training loop: optimizer, schedule, precision, EMA, intervals."""

from __future__ import annotations

from dataclasses import dataclass

from config.values import config_field


@dataclass(frozen=True, kw_only=True)
class TrainingKeys:
    """AdamW, parameter groups, learning-rate schedules, precision, EMA, and intervals."""

    epochs: int = config_field(24, "Epochs, counted on the box-annotated stream", minimum=1)
    max_steps: int = config_field(
        0,
        "Optimizer steps of the whole run, instead of `epochs`; the last epoch ends early. 0 = `epochs`",
        minimum=0,
        official=False,
    )
    lr: float = config_field(1e-4, "Learning rate", minimum=0)
    lr_backbone: float = config_field(1e-5, "Learning rate of the backbone", minimum=0)
    weight_decay: float = config_field(1e-4, "Decoupled weight decay", minimum=0)
    clip_max_norm: float = config_field(0.1, "Maximum gradient norm; 0 = no clipping", minimum=0)
    adam_beta1: float = config_field(0.9, "AdamW's beta 1", minimum=0, maximum=1, official=False)
    adam_beta2: float = config_field(0.999, "AdamW's beta 2", minimum=0, maximum=1, official=False)
    freeze: tuple[str, ...] = config_field(
        (),
        "Parts that do not train, by name: modules (`encoder`, `backbone.body`), parameters, or patterns of "
        "parameter names (`decoder.layers.[0-3].*`)",
        official=False,
    )
    accumulate_steps: int = config_field(
        1, "Batches per optimizer step (gradient accumulation)", minimum=1, official=False
    )
    shard_optimizer: bool = config_field(
        False,
        "Spread AdamW's state over the processes (ZeRO stage 1): less memory in each, the same weights; one "
        "process keeps it all",
        official=False,
    )

    param_dict_type: str = config_field(
        "default",
        "Parameter groups. `default`: backbone and rest; `ddetr_in_mmdet`: also a lower rate for "
        "`lr_linear_proj_names`; `large_wd`: no weight decay on norms and biases",
        choices=("default", "ddetr_in_mmdet", "large_wd"),
    )
    lr_backbone_names: tuple[str, ...] = config_field(
        ("backbone.body",),
        "Parameters whose names contain one of these train at `lr_backbone`; the official `backbone.0` works",
    )
    lr_linear_proj_names: tuple[str, ...] = config_field(
        ("reference_points", "sampling_offsets"),
        "Parameters whose names contain one of these get `lr_linear_proj_mult` (`ddetr_in_mmdet`)",
    )
    lr_linear_proj_mult: float = config_field(0.1, "Factor on `lr` for `lr_linear_proj_names`", minimum=0)
    lr_offsets_mult: float = config_field(
        1.0,
        "Factor on the learning rate of `sampling_offsets`, with any `param_dict_type`",
        minimum=0,
        official=False,
    )

    lr_drop: int = config_field(
        20, "Default schedule: divide the learning rate by 10 every this many epochs", minimum=1
    )
    multi_step_lr: bool = config_field(False, "Divide it by 10 at each epoch of `lr_drop_list` instead")
    lr_drop_list: tuple[int, ...] = config_field(
        (33, 45), "Epochs of the multi-step schedule, ascending", minimum=0
    )
    onecyclelr: bool = config_field(
        False, "One-cycle schedule instead, updated every step (rises for the first 20 %)"
    )
    cosine_lr: bool = config_field(False, "Cosine schedule instead, updated every step", official=False)
    cosine_final: float = config_field(
        0.05, "Fraction of the learning rate at the end of the cosine", minimum=0, maximum=1, official=False
    )
    warmup_iters: int = config_field(
        0, "Steps of linear warm-up; cannot be combined with `onecyclelr`", minimum=0, official=False
    )

    amp: bool | str = config_field(
        "auto",
        "Mixed precision: `True` (also the flag `--amp`), `False` = float32, or `auto`: where the device "
        "multiplies in `amp_dtype` itself, which most GPUs since 2020 do, and CPUs with AVX512_BF16 or AMX",
        choices=("auto", True, False),
        official=False,
    )
    amp_dtype: str = config_field(
        "bfloat16",
        "16-bit type of `amp`; a CPU that only emulates bfloat16 computes in float32",
        choices=("bfloat16", "float16"),
        official=False,
    )
    on_nonfinite: str = config_field(
        "stop",
        "Where a loss or gradient is not finite: `stop`; `skip` leaves out the step, at most 10 in a row, "
        "and waits for the GPU once a step; `rollback` goes back to `checkpoint.pth` and leaves it out, at "
        "most 10 times",
        choices=("stop", "skip", "rollback"),
        official=False,
    )
    tf32: bool = config_field(
        False,
        "CUDA computes products and convolutions of float32 numbers in TF32, which has 10 bits of mantissa "
        "instead of 23: for faster runs with `amp=False`",
        official=False,
    )
    channels_last: bool | str = config_field(
        "auto",
        "Channels-last memory format in backbone and teacher; `auto`: in 16 bit, where it is faster",
        choices=("auto", True, False),
        official=False,
    )

    use_ema: bool = config_field(
        False, "Keep an exponential moving average (EMA) of the weights, and evaluate that"
    )
    ema_decay: float = config_field(0.9997, "Decay of the EMA per step", minimum=0, maximum=1)
    ema_epoch: int = config_field(0, "First epoch of the EMA", minimum=0)
    ema_warmup: bool = config_field(
        False, "Use min(decay, (1 + t) / (10 + t)) as the decay at step t of the EMA", official=False
    )

    eval_interval: int = config_field(
        1, "Epochs between evaluations; the last epoch is always evaluated", minimum=1
    )
    early_stop_patience: int = config_field(
        0,
        "Stop after this many evaluations in a row without a higher AP; 0 = train all epochs",
        minimum=0,
        official=False,
    )
    early_stop_min_delta: float = config_field(
        0.0,
        "AP must rise by more than this, in points of 0..100, to count as higher",
        minimum=0,
        maximum=100,
        official=False,
    )
    eval_per_class: bool = config_field(
        False, "Print a table of every class's AP after an evaluation, also with `--eval`", official=False
    )
    eval_batch_size: int = config_field(
        1, "Images per process and step in evaluation", minimum=1, maximum=4096, official=False
    )
    save_checkpoint_interval: int = config_field(
        1,
        "Epochs between writes of `checkpoint.pth`; it is also written before and after evaluations",
        minimum=1,
    )
    save_interval: int = config_field(
        0,
        "Optimizer steps between writes of `checkpoint.pth`; 0 = by epochs alone",
        minimum=0,
        official=False,
    )
    save_minutes: float = config_field(
        0.0,
        "Minutes after which `checkpoint.pth` is written again; 0 = by epochs and steps alone",
        minimum=0,
        official=False,
    )
    keep_checkpoints: int = config_field(
        0,
        "How many earlier checkpoints stay as `checkpoint_STEP.pth`; 0 = only `checkpoint.pth` and the best",
        minimum=0,
        official=False,
    )
    dry_run: bool = config_field(
        False,
        "Build everything, forecast memory and time from a few steps, and stop; writes nothing",
        official=False,
    )
    tracker: tuple[str, ...] = config_field(
        (),
        "Where the log's numbers also go: any of `tensorboard`, `wandb`, `mlflow`, `trackio`; empty = "
        "TensorBoard if it is installed, `none` = nowhere",
        choices=("none", "tensorboard", "wandb", "mlflow", "trackio"),
        official=False,
    )
    log_interval: int = config_field(50, "Steps between log lines", minimum=1, official=False)
