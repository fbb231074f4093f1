"""The quickstart with and without the image-level stream, after equally many images.

python tools/make_mini_lvis.py --output runs/quickstart/data
python tools/ablate.py config/ablation/quickstart.py --output runs/ablation/quickstart -j 2
"""

config = "config/quickstart/richsem_mini.py"
data = "runs/quickstart/data"
seeds = [1, 2, 3]
# 12 epochs of the shipped config, 2,208 steps.
images = 17664
options = {
    "clip_model": "config/quickstart/mini_clip.json",
    "clip_pretrained": "config/quickstart/mini_clip.safetensors",
    # Rows begin with the paper's: whole boxes, all the time, and every box distilled.
    "image_level_loss": "whole_box",
    "image_level_start": 0,
    "distill_named_only": False,
}

baseline = "boxes alone"
rows = {
    "boxes alone": {"use_imagenet": False},
    "image-level 6:1": {"main_weight": 6},
    "image-level 4:1": {"main_weight": 4},
    "image-level 6:1 until half": {"main_weight": 6, "image_level_end": 6},
    "image-level 6:1 from half": {"main_weight": 6, "image_level_start": 6},
    "image-level 6:1, no box losses": {"main_weight": 6, "mask_bbox": True, "mask_giou": True},
    "image-level 6:1, max-size": {"main_weight": 6, "image_level_loss": "max_size"},
    "image-level 6:1, max-score": {"main_weight": 6, "image_level_loss": "max_score"},
    "image-level 6:1 from two thirds, max-score": {
        "main_weight": 6,
        "image_level_start": 8,
        "image_level_loss": "max_score",
    },
    "boxes alone, named only": {"use_imagenet": False, "distill_named_only": True},
    "image-level 6:1 from two thirds, max-score, named only": {
        "main_weight": 6,
        "image_level_start": 8,
        "image_level_loss": "max_score",
        "distill_named_only": True,
    },
    # Its epochs are longer, so these are the last 14 % of the images, and as many of them image-level ones.
    "image-level 2:1 from the ninth epoch, max-score": {
        "main_weight": 2,
        "image_level_start": 8,
        "image_level_loss": "max_score",
    },
}
