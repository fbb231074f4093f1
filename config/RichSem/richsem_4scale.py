"""RichSem, ResNet-50, 4 scales, 24 epochs of LVIS alternating with ImageNet-LVIS: the paper's main run.

8 processes of 2 images. What is not named here has the schema's default (docs/configuration.md).
"""

_base_ = ["coco_transformer.py"]

# The detector: DINO with a ResNet-50 whose stem and first stage are frozen.
backbone = "resnet50"
return_interm_indices = [1, 2, 3]
num_feature_levels = 4
hidden_dim = 256
nheads = 8
dim_feedforward = 2048
enc_layers = 6
dec_layers = 6
num_queries = 900
num_select = 300

# Contrastive denoising.
use_dn = True
dn_number = 100
dn_box_noise_scale = 1.0
dn_label_noise_ratio = 0.5

# Classes by CLIP's text, soft labels by CLIP's images.
use_language = True
clip_model = "RN50"
use_visual_distill = True
distill_type = "clip_logits"
clip_distill_objective = "gt"
distill_loss_coef = 0.5

# The long tail: repeated rare images, federated loss, image-level images in mosaics, 1:1.
use_rfs = True
rfs_repeat_sh = 0.001
use_fed_loss = True
fed_num_sample_cats = 50
use_imagenet = True
imagenet_use_mosaic = True
main_weight = 1
sub_weight = 1

# AdamW, learning rate x0.1 after 20 epochs.
batch_size = 2
epochs = 24
lr = 1e-4
lr_backbone = 1e-5
weight_decay = 1e-4
clip_max_norm = 0.1
lr_drop = 20
