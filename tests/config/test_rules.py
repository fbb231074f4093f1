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
    ({"early_stop_min_delta": 0.1}, ("early_stop_min_delta=0.1", "early_stop_patience=0")),
    ({"tracker": ["wandb", "none"]}, ("tracker=['wandb', 'none']", "'none' alone")),
    ({"tracker": ["wandb", "wandb"]}, ("tracker", "once")),
    ({"adam_beta2": 1.0}, ("adam_beta1", "adam_beta2")),
]


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
