"""RichSem small enough for a CPU: synthetic images of 160 pixels, a detector of about 2 million parameters.

The backbone is the image trunk of the teacher, a small CLIP that has seen the image-level images alone.
"""

# Images. One size: on a CPU, padding costs as much as image. The crops vary the scale.
data_aug_scales = [160]
data_aug_max_size = 160
data_aug_scales2_resize = [160, 184, 208]
data_aug_scales2_crop = [120, 160]
batch_size = 8
eval_batch_size = 8

# Image-level images: mosaics of four, one batch for six with boxes, in the last third. The label goes to the
# query that says it loudest, which is the right one only when boxes have taught what a thing is
# (docs/ablation.md).
imagenet_use_mosaic = True
mosaic_size = 160
main_weight = 6
sub_weight = 1
image_level_loss = "max_score"
image_level_start = 2 / 3

# The detector: the trunk, and a short, narrow transformer.
backbone = "clip"
return_interm_indices = [1, 2, 3]
num_feature_levels = 3
hidden_dim = 128
nheads = 4
dim_feedforward = 256
enc_layers = 2
dec_layers = 3
num_queries = 60
num_select = 300
dn_number = 40
dn_box_noise_scale = 0.4
# Finding things is soon learnt; telling 40 classes apart from so few images is what takes the time.
cls_loss_coef = 2.5
distill_loss_coef = 0.2
# The teacher names three of five boxes right; what it sees in the others would teach other classes.
distill_named_only = True

# The long tail. The set is small: a rare class would be missing from most epochs without repeats.
use_rfs = True
rfs_repeat_sh = 0.02
fed_num_sample_cats = 40

# Training.
epochs = 12
eval_interval = 6
save_checkpoint_interval = 1
lr = 1e-3
lr_backbone = 1e-3
lr_offsets_mult = 0.3
adam_beta2 = 0.99
clip_max_norm = 1.0
warmup_iters = 50
cosine_lr = True
use_ema = True
ema_decay = 0.99
ema_warmup = True
channels_last = True
log_interval = 20
