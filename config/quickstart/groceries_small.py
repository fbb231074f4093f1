"""The quickstart's detector on photographs of groceries (18 classes, 290 pictures), from scratch."""

_base_ = ["richsem_mini.py"]

data_aug_scales = [192, 208, 224, 240, 256]
data_aug_max_size = 288
data_aug_scales2_resize = [224, 256, 288]
data_aug_scales2_crop = [160, 224]
mosaic_size = 256
epochs = 20
eval_interval = 5
