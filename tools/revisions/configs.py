"""The configs that tools/compare_revisions.py trains: together they touch most of what training computes."""

# Values that both share. Images are 96 pixels wide and high as drawn.
SMALL = {
    "batch_size": 2,
    "eval_batch_size": 2,
    "data_aug_scales": [80, 96],
    "data_aug_max_size": 112,
    "data_aug_scales2_resize": [96, 112],
    "data_aug_scales2_crop": [64, 96],
    "mosaic_size": 96,
    # An epoch is each training image once, and as many image-level batches.
    "use_rfs": False,
    "hidden_dim": 64,
    "nheads": 4,
    "dim_feedforward": 96,
    "enc_layers": 1,
    "dec_layers": 2,
    "num_queries": 30,
    "num_select": 50,
    "dn_number": 10,
    "fed_num_sample_cats": 20,
    "epochs": 1,
    "lr": 1e-3,
    "use_ema": True,
    "log_interval": 1,
    "amp": False,
}
CONFIGS = {
    # The baseline: linear classifier, timm backbone with trainable batch norm, mosaics, constant decay.
    "dino": {
        "use_language": False,
        "use_visual_distill": False,
        "backbone": "resnet10t",
        "backbone_weights": "none",
        "backbone_args": {"channels": [8, 16, 24, 32], "stem_width": 8},
        "num_feature_levels": 4,
        "lr_backbone": 1e-3,
        "ema_decay": 0.9,
        "accumulate_steps": 2,
    },
    # Text classifier, semantic branch with its teacher, CLIP's trunk as backbone.
    "richsem": {
        "backbone": "clip",
        "num_feature_levels": 3,
        "imagenet_use_mosaic": False,
        "distill_aux_layers": True,
        "use_dynamic_distill_weight": True,
        "param_dict_type": "ddetr_in_mmdet",
        "cosine_lr": True,
        "warmup_iters": 2,
        "ema_decay": 0.99,
        "ema_warmup": True,
    },
}


def config_source(name: str, **more: object) -> str:
    """A config file in Python."""
    return "".join(f"{key} = {value!r}\n" for key, value in (SMALL | CONFIGS[name] | more).items())
