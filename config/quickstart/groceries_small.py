"""The quickstart's detector on photographs of groceries (18 classes, 290 images), from scratch."""

_base_ = ["richsem_mini.py"]

# A ResNet of four single-block stages; from nothing, so batch norm trains.
backbone = "resnet10t"
backbone_weights = "none"
backbone_args = {"channels": [32, 64, 128, 256], "stem_width": 16}

data_aug_scales = [192, 208, 224]
data_aug_max_size = 224
data_aug_scales2_resize = [224, 256, 288]
data_aug_scales2_crop = [160, 224]
mosaic_size = 224
main_weight = 4
sub_weight = 1
epochs = 25
eval_interval = 5
