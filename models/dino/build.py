"""A DINO detector and its criterion from a config. The only file of models.dino that sees one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from config import Config
from models.dino.backbone import Backbone, make_backbone
from models.dino.criterion import Criterion, PredictionSetLoss
from models.dino.decoder import Decoder
from models.dino.denoising import Denoising
from models.dino.detector import Detector
from models.dino.encoder import Encoder
from models.dino.federated import FederatedClasses, federated_weights
from models.dino.heads import ClassifierLabelEmbedding, DecoderHead, LinearClassifier
from models.dino.matcher import HungarianMatcher
from models.dino.neck import Neck
from models.dino.one_query import Rule
from models.dino.position import SinePosition
from models.dino.query_selection import QuerySelection
from models.dino.recompute import parts_to_recompute

# `image_level_loss` by name; a whole box is matched like any other.
_ONE_QUERY: dict[str, Rule | None] = {"whole_box": None, "max_size": "max_size", "max_score": "max_score"}


def build_dino(
    config: Config,
    num_classes: int,
    encoder_classifier: nn.Module | None = None,
    backbone: Backbone | None = None,
) -> Detector:
    """The baseline: linear classifiers in decoder and encoder, denoising content from the classifier's rows.

    encoder_classifier: another one for the encoder (the release's baseline has a language classifier there).
    backbone: in place of the config's timm model with its weights.
    """
    classifier = LinearClassifier(config.hidden_dim, num_classes)
    return build_detector(
        config,
        num_classes,
        head=DecoderHead(config.hidden_dim, classifier),
        encoder_classifier=encoder_classifier or LinearClassifier(config.hidden_dim, num_classes),
        label_embedding=ClassifierLabelEmbedding(classifier),
        backbone=backbone or timm_backbone(config),
    )


def timm_backbone(config: Config, load: bool = True) -> Backbone:
    """The timm model that the config names. load: False where a checkpoint brings its weights."""
    return make_backbone(
        config.backbone,
        levels=config.return_interm_indices,
        weights=config.backbone_weights,
        pretrain_path=config.resnet_pretrain_path,
        freeze_keywords=config.backbone_freeze_keywords or (),
        arguments=config.backbone_args,
        load=load,
    )


def build_detector(
    config: Config,
    num_classes: int,
    head: DecoderHead,
    encoder_classifier: nn.Module,
    label_embedding: nn.Module,
    backbone: Backbone,
) -> Detector:
    """A detector around the given heads and backbone."""
    dim, levels = config.hidden_dim, config.num_feature_levels
    recompute = parts_to_recompute(config.use_checkpoint)
    backbone.recompute = "backbone" in recompute
    layer: dict[str, Any] = {
        "dim": dim,
        "levels": levels,
        "heads": config.nheads,
        "ffn_dim": config.dim_feedforward,
        "dropout": config.dropout,
    }
    denoising = None
    if config.use_dn:
        denoising = Denoising(
            number=config.dn_number,
            label_noise=config.dn_label_noise_ratio,
            box_noise=config.dn_box_noise_scale,
            num_classes=num_classes,
            label_embedding=label_embedding,
            # It would teach the boxes that the others leave alone.
            image_level=config.image_level_loss == "whole_box",
        )
    return Detector(
        backbone=backbone,
        neck=Neck(backbone.channels, dim, levels),
        encoder=Encoder(
            num_layers=config.enc_layers,
            points=config.enc_n_points,
            position=SinePosition(dim, config.pe_temperatureH, config.pe_temperatureW),
            recompute="encoder" in recompute,
            **layer,
        ),
        query_selection=QuerySelection(dim, config.num_queries, encoder_classifier),
        decoder=Decoder(
            num_layers=config.dec_layers,
            points=config.dec_n_points,
            recompute="decoder" in recompute,
            **layer,
        ),
        head=head,
        denoising=denoising,
    )


def build_criterion(
    config: Config, image_counts: Sequence[int], extra_losses: Sequence[PredictionSetLoss] = ()
) -> Criterion:
    """image_counts: training images of every class column, 0 for a column without a class."""
    federated = None
    if config.use_fed_loss:
        federated = FederatedClasses(
            federated_weights(image_counts), number=config.fed_num_sample_cats, gather=config.fed_gather
        )
    masks = {"bbox": config.mask_bbox, "giou": config.mask_giou, "loss_ce": config.mask_labels}
    return Criterion(
        matcher=HungarianMatcher(
            class_weight=config.set_cost_class,
            box_weight=config.set_cost_bbox,
            giou_weight=config.set_cost_giou,
            alpha=config.focal_alpha,
        ),
        weights={
            "loss_ce": config.cls_loss_coef,
            "loss_bbox": config.bbox_loss_coef,
            "loss_giou": config.giou_loss_coef,
        },
        interm_weight=config.interm_loss_coef,
        alpha=config.focal_alpha,
        federated=federated,
        encoder_one_class=config.enc_cls_agn,
        ignored_on_image_level=[part for part, on in masks.items() if on],
        one_query=_ONE_QUERY[config.image_level_loss],
        extra_losses=extra_losses,
    )
