"""Contradictions: each names both keys and the fix."""

import pytest

from config import Config
from util.errors import UserError

CONTRADICTIONS = [
    ({"use_language": False}, ("use_visual_distill", "use_language")),
    (
        {"use_language": False, "use_visual_distill": False, "share_vl_proj": True},
        ("share_vl_proj", "use_language"),
    ),
    (
        {"distill_named_only": True, "clip_distill_objective": "pred_all"},
        ("distill_named_only", "clip_distill_objective"),
    ),
    ({"use_fed_on_kd": True, "use_fed_loss": False}, ("use_fed_on_kd", "use_fed_loss")),
    ({"nheads": 6}, ("hidden_dim", "nheads")),
    ({"hidden_dim": 80}, ("hidden_dim=80", "hidden_dim=96")),
    ({"num_feature_levels": 2}, ("return_interm_indices", "num_feature_levels")),
    ({"return_interm_indices": (2, 1)}, ("return_interm_indices", "ascending")),
    ({"return_interm_indices": ()}, ("return_interm_indices", "ascending")),
    ({"num_classes": 1204, "dn_labelbook_size": 91}, ("num_classes", "dn_labelbook_size")),
    ({"use_rfs": True, "use_cas": True}, ("use_rfs", "use_cas")),
    ({"multi_step_lr": True, "onecyclelr": True}, ("multi_step_lr", "onecyclelr")),
    ({"multi_step_lr": True, "cosine_lr": True}, ("multi_step_lr", "cosine_lr")),
    ({"onecyclelr": True, "cosine_lr": True}, ("onecyclelr", "cosine_lr")),
    ({"onecyclelr": True, "warmup_iters": 10}, ("onecyclelr", "warmup_iters")),
    ({"multi_step_lr": True, "lr_drop_list": (11, 8)}, ("multi_step_lr", "lr_drop_list")),
    ({"multi_step_lr": True, "lr_drop_list": ()}, ("multi_step_lr", "lr_drop_list")),
    (
        {"resnet_pretrain_path": "a.pth", "backbone_weights": "none"},
        ("resnet_pretrain_path", "backbone_weights"),
    ),
    ({"data_aug_scales": ()}, ("data_aug_scales",)),
    ({"data_aug_scales2_crop": (600, 384)}, ("data_aug_scales2_crop", "swap")),
    ({"mosaic_centre": (1.5, 0.5)}, ("mosaic_centre", "swap")),
    ({"image_level_start": 4, "image_level_end": 4}, ("image_level_start=4", "image_level_end=4")),
    ({"image_level_start": 24}, ("image_level_start=24", "epochs=24")),
    ({"image_level_start": 1.5}, ("image_level_start=1.5 must be a number of epochs",)),
    ({"image_level_start": 0.5, "image_level_end": 12}, ("image_level_start=0.5", "image_level_end=12")),
    ({"early_stop_min_delta": 0.1}, ("early_stop_min_delta=0.1", "early_stop_patience=0")),
    ({"tracker": ["wandb", "none"]}, ("tracker=['wandb', 'none']", "'none' alone")),
    ({"tracker": ["wandb", "wandb"]}, ("tracker", "once")),
    ({"adam_beta2": 1.0}, ("adam_beta1", "adam_beta2")),
]


SELF: list = []
SELF.append(SELF)
HOSTILE = [
    ({"num_queries": 10**9}, "'num_queries' = 1000000000: must not be above 100000"),
    ({"hidden_dim": 10**6}, "must not be above"),
    ({"data_aug_scales": [480, 10**5]}, "must not be above"),
    ({"epochs": 10**5000}, "'epochs' = (a number beyond 64 bits): expected int"),
    ({"lr": 10**5000}, "'lr' = (a number beyond 64 bits): expected float"),
    ({"lr_drop_list": [1, -(10**5000)]}, "(a number beyond 64 bits)"),
    ({"clip_model": "x" * 10**6, "use_language": 3}, "expected bool"),
    ({"distill_type": "x\n" * 10**6}, "choose one of"),
    ({"backbone_args": SELF}, "expected dict"),
    ({"backbone_args": {"channels": SELF}}, "expected dict"),
    ({"backbone_args": {"channels": [10**5000]}}, "expected dict"),
    ({"backbone_args": {1: 2}}, "expected dict"),
    ({"backbone_args": {"pretrained": True}}, "'pretrained' is not an argument of the model"),
    ({"backbone_args": {"depths": [2, 10**6]}}, "must not be above 512"),
    ({"backbone_args": {"channels": [{"x": -(10**6)}]}}, "must not be above 65536"),
]


@pytest.mark.parametrize(("values", "message"), HOSTILE)
def test_hostile_values_are_one_short_line(values, message):
    with pytest.raises(UserError) as caught:
        Config(**values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(("values", "named"), CONTRADICTIONS)
def test_contradiction_names_both_keys(values, named):
    with pytest.raises(UserError) as caught:
        Config(**values)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in named), message


@pytest.mark.parametrize(
    "values",
    [
        {"use_language": False, "use_visual_distill": False, "use_imagenet": False},
        {"use_language": False, "use_visual_distill": False, "use_fed_on_kd": True, "use_fed_loss": False},
        {"share_vl_proj": True, "use_mlp_proj": True},
        {"distill_type": "clip_l1", "distill_aux_layers": True, "use_mlp_proj": True},
        {"use_rfs": False, "use_cas": True},
        {"num_classes": 1204},
        {"num_classes": 91, "dn_labelbook_size": 92},
        {"multi_step_lr": True, "lr_drop_list": (8, 11)},
        {"epochs": 1, "lr_drop": 20},
    ],
)
def test_what_goes_together_is_accepted(values):
    config = Config(**values)
    assert all(getattr(config, name) == value for name, value in values.items())
