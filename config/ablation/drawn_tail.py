"""The steps of the method on the drawn tail: 64 classes, 20 of them rare, ten image-level images a boxed one.

bash scripts/ablation.sh draws the data and trains the teacher first.
"""

_base_ = ["base/method.py"]

config = "config/quickstart/richsem_mini.py"
data = "runs/ablation/tail_data"
seeds = [1, 2, 3]
# As many as the quickstart's.
images = 17664
# The backbone of every row is the trunk of this small CLIP, which has seen the image-level images alone.
options = {
    # Rows begin with the paper's: whole boxes, all the time, and every box distilled.
    "image_level_loss": "whole_box",
    "image_level_start": 0,
    "distill_named_only": False,
    "clip_model": "runs/ablation/tail_teacher/mini_clip.json",
    "clip_pretrained": "runs/ablation/tail_teacher/mini_clip.safetensors",
}
_LATE = {"image_level_loss": "max_score", "image_level_start": 2 / 3}
_NAMED = {**_LATE, "distill_named_only": True}
rows = {
    "RichSem, max-score": {"image_level_loss": "max_score"},
    "RichSem, image-level until half": {"image_level_end": 6},
    "RichSem, image-level from half": {"image_level_start": 6},
    "RichSem, max-score in the last third, streams 2:1": {**_LATE, "main_weight": 2},
    "RichSem, max-score in the last third, more of the rare": {**_LATE, "image_level_repeat_sh": 1.0},
    "RichSem, late, named only, weight 0.2": {**_NAMED, "image_level_weight": 0.2},
    "RichSem, late, named only, one projection": {**_NAMED, "share_vl_proj": True},
    "RichSem, late, named only, ten times the distillation": {**_NAMED, "distill_loss_coef": 2.0},
}
