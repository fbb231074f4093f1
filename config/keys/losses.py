"""Keys of the matcher, the losses and the semantic branch."""

from __future__ import annotations

from dataclasses import dataclass

from config.values import config_field


@dataclass(frozen=True, kw_only=True)
class LossKeys:
    """Matching costs, loss weights, and which classes a loss uses."""

    set_cost_class: float = config_field(2.0, "Matching cost: weight of the focal class term", minimum=0)
    set_cost_bbox: float = config_field(
        5.0, "Matching cost: weight of the L1 of boxes (cxcywh, 0..1)", minimum=0
    )
    set_cost_giou: float = config_field(2.0, "Matching cost: weight of the generalised IoU", minimum=0)
    cls_loss_coef: float = config_field(1.0, "Weight of the focal classification loss", minimum=0)
    bbox_loss_coef: float = config_field(5.0, "Weight of the L1 box loss", minimum=0)
    giou_loss_coef: float = config_field(2.0, "Weight of the generalised-IoU loss", minimum=0)
    interm_loss_coef: float = config_field(1.0, "Factor on all losses of the encoder proposals", minimum=0)
    focal_alpha: float = config_field(0.25, "Alpha of the focal loss", minimum=0, maximum=1)
    use_fed_loss: bool = config_field(
        True, "Federated loss: the classification loss uses a sample of the classes"
    )
    fed_num_sample_cats: int = config_field(50, "Classes in that sample, including those present", minimum=1)
    fed_gather: bool = config_field(
        False, "Gather the classes present on all processes before sampling", official=False
    )
    judged_classes: bool | str = config_field(
        "auto",
        "Teach that a class is absent only in images in which it was looked for (`labelled_category_ids`, "
        "LVIS's `neg_category_ids`); `auto`: with several sets, or where a file has `labelled_category_ids`",
        choices=("auto", True, False),
        official=False,
    )
    image_level_loss: str = config_field(
        "whole_box",
        "How an image-level label is taught. `whole_box`: the image is a box like any other (RichSem); "
        "`max_size`, `max_score`: the query with the largest box, or the label's best score, learns the "
        "class, and nothing learns a box (Detic)",
        choices=("whole_box", "max_size", "max_score"),
        official=False,
    )
    mask_bbox: bool = config_field(False, "No L1 loss on image-level batches (except in the encoder)")
    mask_giou: bool = config_field(False, "No GIoU loss on image-level batches (except in the encoder)")
    mask_labels: bool = config_field(
        False, "No classification loss on image-level batches (except in the encoder)"
    )


@dataclass(frozen=True, kw_only=True)
class SemanticKeys:
    """RichSem (Meng et al., 2023): the text classifier, and the semantic branch with its CLIP teacher."""

    use_language: bool = config_field(
        True, "Use CLIP text embeddings of the class names as classifier weights"
    )
    clip_model: str = config_field("RN50", "open_clip model for text embeddings and teacher")
    clip_pretrained: str = config_field(
        "openai", "Its weights: an open_clip tag or a local file", official=False
    )
    text_cache_dir: str = config_field(
        "",
        "Folder that caches text embeddings; empty = the cache folder (`~/.cache/richsem`)",
        official=False,
    )
    use_visual_distill: bool = config_field(True, "Train the semantic branch on the teacher's embeddings")
    check_teacher: bool = config_field(
        True,
        "Before the first step the teacher names a few image-level images: fewer right than by chance is an "
        "error, as its image and text sides do not match",
        official=False,
    )
    distill_loss_coef: float = config_field(0.5, "Weight of the distillation loss", minimum=0)
    distill_type: str = config_field(
        "clip_logits",
        "`clip_logits`: KL divergence over the classes; `clip_l1`: L1 of unit vectors",
        choices=("clip_logits", "clip_l1"),
    )
    clip_distill_objective: str = config_field(
        "gt",
        "Boxes that the teacher embeds: ground truth, or the reference boxes of matched or of all queries",
        choices=("gt", "pred", "pred_all"),
    )
    use_dynamic_distill_weight: bool = config_field(
        False, "Weight each distilled box by the entropy of its target"
    )
    use_fed_on_kd: bool = config_field(False, "Distil only over the federated sample of classes")
    distill_named_only: bool = config_field(
        False,
        "Distil only boxes that the teacher names right: for a teacher that does not know every class",
        official=False,
    )
    distill_aux_layers: bool = config_field(False, "Distil at every decoder layer, not only at the last")
    share_vl_proj: bool = config_field(
        False, "Share one MLP projection of the queries between classifier and semantic branch"
    )
    use_mlp_proj: bool = config_field(
        False, "Project queries with an MLP, not a linear layer, in the semantic branch"
    )
    use_cls_mlp_proj: bool = config_field(True, "With `use_mlp_proj`: use such an MLP in the classifier too")
