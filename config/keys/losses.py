"""Keys of the matcher, the losses and the semantic branch."""

from __future__ import annotations

from dataclasses import dataclass

from config.keys.declare import key


@dataclass(frozen=True, kw_only=True)
class LossKeys:
    """What is matched, what is weighed, and which classes a loss sees."""

    set_cost_class: float = key(2.0, "Matching cost: focal class term", minimum=0)
    set_cost_bbox: float = key(5.0, "Matching cost: L1 of boxes (cxcywh, 0..1)", minimum=0)
    set_cost_giou: float = key(2.0, "Matching cost: generalised IoU", minimum=0)
    cls_loss_coef: float = key(1.0, "Weight of the focal class loss", minimum=0)
    bbox_loss_coef: float = key(5.0, "Weight of the L1 box loss", minimum=0)
    giou_loss_coef: float = key(2.0, "Weight of the generalised-IoU loss", minimum=0)
    interm_loss_coef: float = key(1.0, "Factor on all losses of the encoder's proposals", minimum=0)
    focal_alpha: float = key(0.25, "Alpha of the focal loss", minimum=0, maximum=1)
    use_fed_loss: bool = key(True, "Federated loss: each class loss sees only a sample of the classes")
    fed_num_sample_cats: int = key(50, "Classes in that sample, those present included", minimum=1)
    fed_gather: bool = key(False, "Gather the present classes over all processes before sampling", ours=True)
    mask_bbox: bool = key(False, "No L1 loss on image-level batches (encoder excepted)")
    mask_giou: bool = key(False, "No generalised-IoU loss on image-level batches (encoder excepted)")
    mask_labels: bool = key(False, "No class loss on image-level batches (encoder excepted)")


@dataclass(frozen=True, kw_only=True)
class SemanticKeys:
    """RichSem (Meng et al., 2023): the language classifier and the semantic branch with its CLIP teacher."""

    use_language: bool = key(True, "Classifier weights are CLIP text embeddings of the class names")
    clip_model: str = key("RN50", "open_clip model of the text embeddings and the teacher")
    clip_pretrained: str = key("openai", "Its weights: an open_clip tag or a local file", ours=True)
    text_cache_dir: str = key(
        "",
        "Folder where text embeddings are cached; empty = the cache folder (`~/.cache/richsem`)",
        ours=True,
    )
    use_visual_distill: bool = key(True, "Train the semantic branch against the teacher")
    distill_loss_coef: float = key(0.5, "Weight of the distillation loss", minimum=0)
    distill_type: str = key(
        "clip_logits",
        "`clip_logits`: KL divergence over the classes; `clip_l1`: L1 of unit vectors",
        choices=("clip_logits", "clip_l1"),
    )
    clip_distill_objective: str = key(
        "gt",
        "Boxes that the teacher looks at: ground truth, matched queries' or all queries' reference boxes",
        choices=("gt", "pred", "pred_all"),
    )
    use_dynamic_distill_weight: bool = key(False, "Weigh each distilled row by the entropy of its target")
    use_fed_on_kd: bool = key(False, "Distil over the federated sample of classes only")
    distill_aux_layers: bool = key(False, "Distil at every decoder layer, not only the last")
    share_vl_proj: bool = key(False, "One MLP projects queries for the classifier and the semantic branch")
    use_mlp_proj: bool = key(False, "The semantic branch projects queries with an MLP, not linearly")
    use_cls_mlp_proj: bool = key(True, "With `use_mlp_proj`: the classifier uses such an MLP too")
