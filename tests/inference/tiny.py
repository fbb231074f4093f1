"""A tiny checkpoint with random weights."""

from dataclasses import fields
from pathlib import Path

import torch

from config import Config
from models.richsem.build import build_model
from util.checkpoint import Checkpoint, save_checkpoint

NAMES = ["cup", "plate", "urn"]
TINY = {
    "use_language": False,
    "use_visual_distill": False,
    "enc_cls_agn": False,
    "backbone": "resnet10t",
    "backbone_weights": "none",
    "backbone_args": {"channels": [16, 16, 32, 32], "stem_width": 8},
    "return_interm_indices": [1, 2, 3],
    "num_feature_levels": 3,
    "hidden_dim": 32,
    "nheads": 2,
    "dim_feedforward": 32,
    "enc_layers": 1,
    "dec_layers": 1,
    "num_queries": 10,
    "num_select": 20,
    "dn_number": 4,
    "data_aug_scales": [96],
    "data_aug_max_size": 128,
}


def make_checkpoint(path: Path, **entries) -> Path:
    """Writes one whose classes have 3, 50 and 500 training images.

    entries: of the `Checkpoint`, or of its config.
    """
    torch.manual_seed(0)
    known = {f.name for f in fields(Config)}
    config = Config.from_dict(TINY | {name: entries.pop(name) for name in known & set(entries)})
    parts = build_model(config, NAMES, [1] * 3, "cpu", training=False)
    own = {"model": parts.model.state_dict(), "class_names": NAMES, "image_counts": [3, 50, 500]}
    save_checkpoint(path, Checkpoint(**{**own, "config": config.to_dict(), **entries}))
    return path
