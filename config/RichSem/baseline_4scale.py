"""The DINO baseline: linear classifiers, LVIS boxes alone, 12 epochs."""

_base_ = ["richsem_4scale.py"]

use_language = False
use_visual_distill = False
use_imagenet = False
epochs = 12
lr_drop = 11
