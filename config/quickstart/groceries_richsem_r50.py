"""RichSem with ResNet-50 and 4 scales on photographs of groceries, at sizes that a CPU can handle."""

_base_ = ["../RichSem/richsem_4scale.py"]

data_aug_scales = [256, 288, 320]
data_aug_max_size = 533
data_aug_scales2_resize = [256, 288, 320]
data_aug_scales2_crop = [192, 320]
mosaic_size = 512
batch_size = 1
rfs_repeat_sh = 0.05
epochs = 12
lr_drop = 10
warmup_iters = 50
log_interval = 10
