"""The steps of the method on photographs of groceries, with a backbone that ImageNet has pretrained.

Data: 18 classes, 290 training and 49 validation photographs, resized to 512x512 pixels, of EpicureAi v12 on
Roboflow Universe (wagon/epicureai, CC BY 4.0), in LVIS's format; rare classes are in at most 25 training
photographs, common ones in at most 66. Image-level: 645 photographs of 8 of these classes, all rare ones
among them, of the Grocery Store Dataset (M. Klasson et al., MIT), scaled to at most 416 pixels. `--data_path`
names the folder.

bash scripts/ablation.sh prepares weights and teachers first.
"""

_base_ = ["base/method.py"]

config = "config/quickstart/groceries_small.py"
seeds = [1, 2, 3]
# 600 steps, and images of 160 pixels: a run takes four minutes of a core.
images = 4800
options = {
    # Rows begin with the paper's: whole boxes, all the time, and every box distilled.
    "image_level_loss": "whole_box",
    "image_level_start": 0,
    "distill_named_only": False,
    "backbone": "tf_efficientnet_lite0",
    "backbone_weights": "runs/ablation/lite0.safetensors",
    "backbone_args": {"_delete_": True},
    # Up to the first map that the detector takes, as DETR keeps the first stage of its ResNet.
    "backbone_freeze_keywords": ["conv_stem", "blocks.0.", "blocks.1.", "blocks.2."],
    "lr_backbone": 1e-4,
    "data_aug_scales": [160],
    "data_aug_max_size": 160,
    "data_aug_scales2_resize": [160, 184, 208],
    "data_aug_scales2_crop": [120, 160],
    "mosaic_size": 160,
    # The same trunk, trained on the image-level photographs.
    "clip_model": "runs/ablation/groceries_teacher/mini_clip.json",
    "clip_pretrained": "runs/ablation/groceries_teacher/mini_clip.safetensors",
}
rows = {
    "RichSem, image-level until half": {"image_level_end": 8},
    "RichSem, image-level from half": {"image_level_start": 0.5},
    "RichSem, late, named only, more of the rare": {
        "image_level_loss": "max_score",
        "image_level_start": 2 / 3,
        # 10 of the 18 classes have no image-level images, so the teacher does not know them.
        "distill_named_only": True,
        "image_level_repeat_sh": 1.0,
    },
    "RichSem, teacher from scratch": {
        "clip_model": "runs/ablation/groceries_teacher_scratch/mini_clip.json",
        "clip_pretrained": "runs/ablation/groceries_teacher_scratch/mini_clip.safetensors",
    },
}
compare = [
    ["+ image-level stream", "+ text classifier"],
    ["semantic branch, boxes alone", "+ text classifier"],
    ["RichSem (all)", "+ text classifier"],
    ["RichSem (all)", "+ image-level stream"],
    ["RichSem (all)", "RichSem, teacher from scratch"],
    ["semantic branch, boxes alone, named only", "+ text classifier"],
    ["RichSem, late, named only", "semantic branch, boxes alone, named only"],
]
