"""Keys of the detector: backbone, transformer, queries, denoising, heads."""

from __future__ import annotations

from dataclasses import dataclass

from config.values import config_field


@dataclass(frozen=True, kw_only=True)
class ModelKeys:
    """The detector (DINO, Zhang et al., 2022). Widths are in channels."""

    backbone: str = config_field(
        "resnet50",
        "Any timm model with `features_only`, by name; or `clip`: the image trunk of `clip_model`, which "
        "must be an attention-pooled ResNet, with its weights",
    )
    backbone_weights: str = config_field(
        "default",
        "`default` = timm's default weights (resnet50: `resnet50.tv_in1k`), `none` = from scratch with "
        "trainable batch norm, or a timm tag or local file",
        official=False,
    )
    # `key` makes a factory of a dict, so instances do not share it.
    backbone_args: dict = config_field({}, "Keyword arguments of `timm.create_model`", official=False)  # noqa: RUF009
    backbone_freeze_keywords: tuple[str, ...] = config_field(
        (), "Also freeze backbone parameters whose names contain one of these"
    )
    resnet_pretrain_path: str = config_field(
        "", "Local file with ImageNet-21k ResNet weights; if set, the whole backbone trains"
    )
    return_interm_indices: tuple[int, ...] = config_field(
        (1, 2, 3),
        "Backbone stages to use, ascending; stage i has stride 4 * 2^i",
        minimum=0,
        maximum=3,
    )
    num_feature_levels: int = config_field(
        4, "Feature levels; those beyond the stages come from stride-2 convolutions", minimum=1, maximum=16
    )
    pe_temperatureH: int = config_field(20, "Temperature of the sine position embedding, vertical", minimum=1)  # noqa: N815
    pe_temperatureW: int = config_field(  # noqa: N815
        20, "Temperature of the sine position embedding, horizontal", minimum=1
    )

    hidden_dim: int = config_field(
        256, "Width of queries and tokens, a multiple of 32", minimum=32, maximum=16384
    )
    nheads: int = config_field(8, "Attention heads; must divide `hidden_dim`", minimum=1, maximum=1024)
    dim_feedforward: int = config_field(
        2048, "Hidden width of the feed-forward blocks", minimum=1, maximum=131072
    )
    dropout: float = config_field(0.0, "Dropout in the transformer", minimum=0, maximum=1)
    enc_layers: int = config_field(6, "Encoder layers", minimum=1, maximum=256)
    dec_layers: int = config_field(6, "Decoder layers", minimum=1, maximum=256)
    enc_n_points: int = config_field(
        4, "Sampling points per level and head in the encoder", minimum=1, maximum=256
    )
    dec_n_points: int = config_field(
        4, "Sampling points per level and head in the decoder", minimum=1, maximum=256
    )
    use_checkpoint: bool | str | tuple[str, ...] = config_field(
        False,
        "Activations are computed again in the backward pass instead of kept: less memory, more work, the "
        "same losses; `True`, or some of `backbone,encoder,decoder`",
        choices=(False, True, "backbone", "encoder", "decoder"),
    )
    torch_compile: bool = config_field(
        False,
        "torch.compile for the layers of encoder and decoder: fewer launches, minutes for the first steps, "
        "and more memory, as feed-forward blocks keep their hidden maps",
        official=False,
    )
    num_queries: int = config_field(
        900, "Queries selected from the encoder proposals", minimum=1, maximum=100000
    )
    num_select: int = config_field(300, "Detections kept per image", minimum=1, maximum=1000000)
    fixed_ap: bool = config_field(
        False, "Also report Fixed AP: 10,000 detections per class over all images", official=False
    )
    fixed_ap_num_select: int = config_field(
        1000, "Detections kept per image with `fixed_ap`", minimum=300, maximum=1000000, official=False
    )

    enc_cls_agn: bool = config_field(False, "Class-agnostic linear class head for the encoder proposals")

    use_dn: bool = config_field(True, "Contrastive denoising queries in training")
    dn_number: int = config_field(
        100,
        "Number of denoising groups = max(1, dn_number // largest box count of an image in the batch)",
        minimum=1,
        maximum=100000,
    )
    dn_box_noise_scale: float = config_field(
        1.0, "Box noise of the denoising queries, in units of half the box size", minimum=0
    )
    dn_label_noise_ratio: float = config_field(
        0.5, "Label noise: half this fraction of the denoising labels is resampled", minimum=0, maximum=1
    )
