"""Official keys and flags without a field of ours. Names and values are facts of the official release.

`UNSUPPORTED_KEYS` switch features that are not rebuilt: accepted at the official value, refused at any other.
`IGNORED_KEYS` are never read by the official code: accepted at any value and named once.
`COMMAND_LINE_FLAGS` stand beside the keys in the `args` of an official checkpoint.
"""

from __future__ import annotations

from typing import Any

_FIXED = "the decoder is DINO's"
_MASKS = "instance masks are not rebuilt"
_PSEUDO = "pseudo labels and unlabelled data are not rebuilt"
_QUERIES = "queries are chosen by mixed selection only"
_HEADS = "decoder layers share their heads, the encoder has heads of its own"

UNSUPPORTED_KEYS: dict[str, tuple[Any, str]] = {
    # key: (official value, why another value is refused)
    "modelname": ("richsem", "there is one model; `use_language=False` gives the DINO baseline"),
    "data_aug_scale_overlap": (None, "write the scaled `data_aug_scales` instead"),
    "lvis_drop_ratio": (0.0, "images are not dropped at random"),
    "frozen_weights": (None, _MASKS),
    "masks": (False, _MASKS),
    "inst_masks": (False, _MASKS),
    "with_vector": (False, _MASKS),
    "dilation": (False, "pass `output_stride` in `backbone_args` instead"),
    "position_embedding": ("sine", "positions are sine embeddings"),
    "pre_norm": (False, "layers normalise after the residual sum"),
    "transformer_activation": ("relu", "feed-forward blocks use ReLU"),
    "unic_layers": (0, _FIXED),
    "query_dim": (4, _FIXED),
    "fix_refpoints_hw": (-1, _FIXED),
    "random_refpoints_xy": (False, _FIXED),
    "use_deformable_box_attn": (False, _FIXED),
    "box_attn_type": ("roi_align", _FIXED),
    "dec_layer_number": (None, _FIXED),
    "decoder_layer_noise": (False, _FIXED),
    "dln_xy_noise": (0.2, _FIXED),
    "dln_hw_noise": (0.2, _FIXED),
    "decoder_sa_type": ("sa", _FIXED),
    "decoder_module_seq": (("sa", "ca", "ffn"), _FIXED),
    "add_channel_attention": (False, _FIXED),
    "add_pos_value": (False, _FIXED),
    "use_detached_boxes_dec_out": (False, "boxes are refined by looking forward twice"),
    "num_patterns": (0, _QUERIES),
    "embed_init_tgt": (True, _QUERIES),
    "two_stage_type": ("standard", _QUERIES),
    "two_stage_pat_embed": (0, _QUERIES),
    "two_stage_add_query_num": (0, _QUERIES),
    "two_stage_learn_wh": (False, _QUERIES),
    "two_stage_keep_all_tokens": (False, _QUERIES),
    "dec_pred_bbox_embed_share": (True, _HEADS),
    "dec_pred_class_embed_share": (True, _HEADS),
    "two_stage_bbox_embed_share": (False, _HEADS),
    "two_stage_class_embed_share": (False, _HEADS),
    "two_stage_cls": (False, _QUERIES),
    "aux_loss": (True, "every decoder layer is trained"),
    "no_interm_box_loss": (False, "the encoder's proposals are trained with box losses"),
    "matcher_type": ("HungarianMatcher", "matching is Hungarian"),
    "nms_iou_threshold": (-1, "detections are not suppressed by overlap"),
    "dn_labelbook_reuse_cls": (True, "denoising labels share the classifier's embeddings"),
    "attn_label_enc": (False, "denoising labels share the classifier's embeddings"),
    "check_pos_dn": (False, "denoising positives are always those of their own box"),
    "add_gt": (False, "ground truth is not added to the queries"),
    "distill_random_boxes": (False, "the teacher looks at the boxes of `clip_distill_objective` only"),
    "use_clip_visual_query": (False, "queries do not come from CLIP images"),
    "clip_visual_resolution": (224, "the teacher sees the training image at its own size"),
    "use_cnn_clip": (True, "the kind of CLIP trunk follows from `clip_model`; leave this key out"),
    "as_unlabeled": (False, _PSEUDO),
    "use_imagenet_pusedo_labels": (False, _PSEUDO),
    "clip_pusedo_th": (0.05, _PSEUDO),
    "use_extra_data": (False, _PSEUDO),
    "extra_data_type": ("", _PSEUDO),
    "is_cc": (False, _PSEUDO),
}

_DEAD = """
ddetr_lr_param pdetr3_bbox_embed_diff_each_layer pdetr3_refHW dabdetr_yolo_like_anchor_update
dabdetr_deformable_encoder dabdetr_deformable_decoder two_stage_default_hw batch_norm_type
mask_loss_coef dice_loss_coef enc_loss_coef match_unstable_error mlc_sample_number mlc_use_focal
mlc_loss_ceof dn_cls_agnostic mlc_type use_mlc_bce inst_focal_mask_loss mask_use_relative_hw
eval_inst_masks use_query_mask reuse_mask_head mask_cls_agn inst_masks_bce_loss use_query_conv
mask_stride_list is_whole_mask sup_cl_loss_coef use_sup_cl cl_queue_len condinst_channel_div
condinst_mask_channel add_gt_to_mask add_dn_to_mask concat_mask_input n_keep gt_mask_len
vector_loss_coef vector_hidden_dim no_vector_loss_norm activation vector_start_stage loss_type
vector_mask_coef
"""
IGNORED_KEYS: frozenset[str] = frozenset(_DEAD.split())

_FLAGS = """
config_file options dataset_file data_path coco_path coco_panoptic_path remove_difficult output_dir note
device seed resume pretrain_model_path finetune_ignore finetune_ignore_all start_epoch eval test debug
num_workers find_unused_params save_results save_log fix_size amp world_size rank dist_url local_rank
gpu distributed dist_backend
"""
COMMAND_LINE_FLAGS: frozenset[str] = frozenset(_FLAGS.split())

# Official values that speak of the official code's own names or folders: key -> (theirs, ours).
TRANSLATED_VALUES: dict[str, tuple[Any, Any]] = {
    "imagenet_path": ("DATASET/imagenet-lvis", ""),  # a placeholder: below --data_path
    "lr_backbone_names": (("backbone.0",), ("backbone.body",)),  # the backbone inside its wrapper
}
