"""Stores a checkpoint of the revision that is checked out, and the numbers that it leads to.

    python -m tests.compat.make tests/compat/REVISION

A first run trains until the model detects something. A second run starts from its weights, with everything
that a checkpoint keeps: warm-up, schedule, parameter groups, moving average. The checkpoint after the first
of its two epochs is stored.
"""

import lzma
import sys
import tempfile
from pathlib import Path

from tests.compat.data import write_clip, write_data
from tests.compat.outcome import CHECKPOINT, NUMBERS, SPLITS, STORED, command, follow_up, write_numbers

MODEL = {
    "backbone": "resnet10t",
    "backbone_weights": "none",
    "backbone_args": {"channels": [8, 8, 8, 8], "stem_width": 8},
    "return_interm_indices": [2, 3],
    "num_feature_levels": 2,
    "hidden_dim": 32,
    "nheads": 2,
    "dim_feedforward": 16,
    "enc_layers": 1,
    "dec_layers": 1,
    "enc_n_points": 2,
    "dec_n_points": 2,
    "num_queries": 12,
    "num_select": 12,
    "dn_number": 6,
    "fed_num_sample_cats": 2,
    "use_rfs": False,
    # The images already have this size. Resizing would round differently on different processors.
    "data_aug_scales": [64],
    "data_aug_max_size": 64,
    "data_aug_scales2_resize": [64],
    "data_aug_scales2_crop": [64, 64],
    "imagenet_use_mosaic": False,
    "eval_batch_size": 4,
    "amp": False,
}
FIRST = {
    "batch_size": 4,
    "main_weight": 4,
    "epochs": 4,
    "eval_interval": 4,
    "lr": 1e-3,
    "lr_backbone": 1e-3,
    "cosine_lr": True,
    "clip_max_norm": 1.0,
}
SECOND = {
    "batch_size": 2,
    "lr": 1e-3,
    "lr_backbone": 1e-4,
    "param_dict_type": "ddetr_in_mmdet",
    "cosine_lr": True,
    # Longer than the 10 steps of an epoch: the checkpoint is written during the warm-up.
    "warmup_iters": 14,
    "use_ema": True,
    "ema_decay": 0.9,
    # The decay depends on the number of updates, so the test notices a lost count.
    "ema_warmup": True,
    "log_interval": 1,
}


def main() -> int:
    target = Path(sys.argv[1])
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        clip = write_clip(work / "clip")
        paths = {"clip_model": str(clip[0]), "clip_pretrained": str(clip[1]), "text_cache_dir": str(work)}
        first = _config(work / "first.py", MODEL | FIRST | paths)
        second = _config(work / "second.py", MODEL | SECOND | paths)
        large, small = write_data(work / "large", 200, 20), write_data(work / "small", **SPLITS)
        command("-c", first, "--data_path", large, "--output_dir", work / "first")
        start = ("--pretrain_model_path", work / "first" / CHECKPOINT, "--output_dir", work / "second")
        command("-c", second, "--data_path", small, *start, "--options", "epochs=1")
        checkpoint = work / "second" / CHECKPOINT
        (target / STORED).write_bytes(lzma.compress(checkpoint.read_bytes(), preset=9))
        write_numbers(target / NUMBERS, follow_up(checkpoint, small, clip, work))
    print(f"{target / STORED}: {(target / STORED).stat().st_size / 1000:.0f} kB")
    return 0


def _config(path: Path, values: dict) -> Path:
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in values.items()))
    return path


if __name__ == "__main__":
    sys.exit(main())
