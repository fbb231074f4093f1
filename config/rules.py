"""Keys that contradict each other. Each rule names both keys and the fix in one line."""

from typing import Any

from config.keys import Keys
from config.values import shown
from util.errors import UserError

_NOT_A_SHAPE = {
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "features_only",
    "out_indices",
}
# Limits of `backbone_args`: blocks of a stage, whose arguments timm names so, and any other number.
_COUNTS, _MOST_BLOCKS, _WIDEST = ("depth", "layers", "blocks"), 512, 65536


def check(config: Keys) -> None:
    """Raises UserError for the first contradiction found."""
    _check_shapes(config)
    _check_semantics(config)
    _check_data(config)
    _check_schedule(config)


def _forbid(condition: bool, message: str) -> None:
    if condition:
        raise UserError(message)


def _check_shapes(c: Keys) -> None:
    stages = c.return_interm_indices
    _forbid(
        c.hidden_dim % c.nheads != 0,
        f"hidden_dim={c.hidden_dim} is not divisible by nheads={c.nheads}: change one of them",
    )
    _forbid(
        c.hidden_dim % 32 != 0,
        f"hidden_dim={c.hidden_dim} is not divisible by 32, the groups of the neck's normalisation: "
        f"take hidden_dim={-(-c.hidden_dim // 32) * 32}",
    )
    _forbid(
        not stages or list(stages) != sorted(set(stages)),
        f"return_interm_indices={list(stages)} must be ascending stages, each once, for example [1, 2, 3]",
    )
    _forbid(
        len(stages) > c.num_feature_levels,
        f"return_interm_indices={list(stages)} exceeds num_feature_levels={c.num_feature_levels}: "
        f"set num_feature_levels={len(stages)} or name fewer stages",
    )


def _check_semantics(c: Keys) -> None:
    _forbid(
        c.use_visual_distill and not c.use_language,
        "use_visual_distill=True compares with the text embeddings of use_language=False: "
        "set use_language=True or use_visual_distill=False",
    )
    _forbid(
        c.distill_named_only and c.clip_distill_objective == "pred_all",
        "distill_named_only=True asks for the class of a matched box, and clip_distill_objective='pred_all' "
        "distils queries without one: change one of them",
    )
    _forbid(
        c.share_vl_proj and not c.use_language,
        "share_vl_proj=True shares a projection that use_language=False does not have: "
        "set use_language=True or share_vl_proj=False",
    )
    _forbid(
        c.use_visual_distill and c.use_fed_on_kd and not c.use_fed_loss,
        "use_fed_on_kd=True distils over the classes that use_fed_loss=False does not sample: "
        "set use_fed_loss=True or use_fed_on_kd=False",
    )
    _forbid(
        bool(c.resnet_pretrain_path) and c.backbone_weights != "default",
        f"resnet_pretrain_path={c.resnet_pretrain_path!r} and backbone_weights={c.backbone_weights!r} "
        "both name weights of the backbone: leave one of them out",
    )
    _check_backbone_arguments(c)
    for name, value in (
        ("backbone_weights", c.backbone_weights),
        ("backbone_args", c.backbone_args),
        ("resnet_pretrain_path", c.resnet_pretrain_path),
    ):
        _forbid(
            c.backbone == "clip" and value not in ("default", "", {}),
            f"{name}={value!r} does not go with backbone='clip', whose trunk and weights are clip_model's: "
            f"leave {name} out",
        )


def _check_backbone_arguments(c: Keys) -> None:
    """They shape the model. What is loaded into it, and from where, other keys say."""
    for name, value in c.backbone_args.items():
        _forbid(
            name in _NOT_A_SHAPE,
            f"backbone_args: {name!r} is not an argument of the model: backbone, backbone_weights and "
            "return_interm_indices say what is loaded and which maps it gives",
        )
        most = _MOST_BLOCKS if any(word in name for word in _COUNTS) else _WIDEST
        _forbid(_largest(value) > most, f"backbone_args: {name!r} = {shown(value)}: must not be above {most}")


def _largest(value: Any) -> float:
    """The largest number in nested containers; 0 where there is none."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return max(map(_largest, value), default=0)
    return abs(value) if isinstance(value, (int, float)) else 0


def _check_data(c: Keys) -> None:
    _forbid(
        isinstance(c.batch_size, str) and c.batch_size != "auto",
        f"key 'batch_size' = {shown(c.batch_size)}: must be a number, or 'auto'",
    )
    _forbid(
        bool(c.num_classes and c.dn_labelbook_size and c.dn_labelbook_size < c.num_classes),
        f"dn_labelbook_size={c.dn_labelbook_size} is below num_classes={c.num_classes}: "
        "set both alike, or both to 0 to derive them",
    )
    _forbid(
        c.use_rfs and c.use_cas,
        "use_rfs=True and use_cas=True are two samplers for one stream: set one of them to False",
    )
    _forbid(
        c.use_cas and bool(c.set_weights),
        "set_weights weighs the images of each set, use_cas=True draws classes: leave one of them out",
    )
    _forbid(
        bool(c.set_weights) and not any(c.set_weights),
        f"set_weights={list(c.set_weights)} leaves no image to train on",
    )
    start = c.image_level_start
    _forbid(
        start >= 1 and start != int(start),
        f"image_level_start={start} must be a number of epochs, or a share of them below 1",
    )
    first, end = c.image_level_epochs
    _forbid(
        c.use_imagenet and first >= end,
        f"image_level_start={start:g} with image_level_end={c.image_level_end} and epochs={c.epochs} leaves "
        "no epoch to the image-level stream: change them, or set use_imagenet=False",
    )
    _forbid(not c.data_aug_scales, "data_aug_scales=[] leaves no image size: name at least one")
    _forbid(
        not c.data_aug_scales2_resize, "data_aug_scales2_resize=[] leaves no image size: name at least one"
    )
    low, high = c.data_aug_scales2_crop
    _forbid(low > high, f"data_aug_scales2_crop={[low, high]} must be [smallest, largest]: swap the two")
    lowest, highest = c.mosaic_centre
    _forbid(lowest > highest, f"mosaic_centre={[lowest, highest]} must be [lowest, highest]: swap the two")


def _check_schedule(c: Keys) -> None:
    chosen = [f"{name}=True" for name in ("multi_step_lr", "onecyclelr", "cosine_lr") if getattr(c, name)]
    _forbid(
        len(chosen) > 1,
        f"{' and '.join(chosen)} are different schedules: set all but one to False",
    )
    _forbid(
        c.onecyclelr and c.warmup_iters > 0,
        f"onecyclelr=True has a warm-up of its own: set warmup_iters=0 (it is {c.warmup_iters})",
    )
    _forbid(
        c.early_stop_min_delta > 0 and c.early_stop_patience == 0,
        f"early_stop_min_delta={c.early_stop_min_delta} does nothing with early_stop_patience=0: "
        "set early_stop_patience, for example 5",
    )
    trackers = list(c.tracker)
    _forbid(
        len(trackers) != len(set(trackers)) or ("none" in trackers and len(trackers) > 1),
        f"tracker={trackers} must name each tracker once, or 'none' alone",
    )
    drops = list(c.lr_drop_list)
    _forbid(
        c.multi_step_lr and (not drops or drops != sorted(set(drops))),
        f"multi_step_lr=True needs lr_drop_list as ascending epochs, for example [8, 11]; it is {drops}",
    )
    _forbid(
        max(c.adam_beta1, c.adam_beta2) >= 1,
        f"adam_beta1={c.adam_beta1} and adam_beta2={c.adam_beta2} must be below 1, usually 0.9 and 0.999",
    )
