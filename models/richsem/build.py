"""RichSem, or its DINO baseline, from a config. The only file of models.richsem that sees one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from torch import Tensor, nn

from config import Config
from models.dino.backbone import Backbone
from models.dino.build import build_criterion, build_detector, build_dino, timm_backbone
from models.dino.compiled import compile_layers
from models.dino.criterion import Criterion
from models.dino.detector import Detector
from models.dino.heads import DecoderHead, LinearClassifier
from models.dino.layers import MLP
from models.dino.ops.linear import Linear
from models.dino.postprocess import PostProcess
from models.richsem import clip_backbone
from models.richsem import official_checkpoint as official
from models.richsem.classifier import (
    LanguageClassifier,
    TextEmbeddings,
    TextLabelEmbedding,
    init_focal_prior_,
)
from models.richsem.clip import load_clip, resolve_name
from models.richsem.distillation import DistillationLoss
from models.richsem.semantic_head import SemanticHead
from models.richsem.teacher import Teacher
from models.richsem.text_embeddings import text_embeddings
from util.checkpoint import Checkpoint, check_model_state, load_model_state
from util.errors import UserError, first_line
from util.precision import choose_precision

# Official models all speak through OpenAI's tokenizer.
OPENAI_TOKENIZER = "RN50"


@dataclass(frozen=True)
class ModelParts:
    """What a run needs of the models, on the asked device.

    model and criterion; teacher, None without a semantic branch or outside training; postprocess.
    """

    model: Detector
    criterion: Criterion
    teacher: Teacher | None
    postprocess: PostProcess


@dataclass(frozen=True)
class Clip:
    """A CLIP model with its tokenizer."""

    model: nn.Module
    tokenizer: Callable


def build_model(
    config: Config,
    class_names: Sequence[str],
    image_counts: Sequence[int],
    device: torch.device | str = "cpu",
    unused: Sequence[int] = (),
    training: bool = True,
    state: Mapping[str, Tensor] | None = None,
    source: str | Path = "checkpoint",
    clip: Clip | None = None,
    load_backbone: bool = True,
) -> ModelParts:
    """All parts of a run, with the weights of `state` where it is given.

    class_names: one name a class column. image_counts: its training images, for the federated loss.
    unused: columns that are no class. training: whether a teacher is wanted. state: a checkpoint's model
    state; it brings its vocabulary, and without a teacher nothing is fetched, whatever the config names.
    source: the file of `state`, for messages. clip: used in place of the configured one. load_backbone:
    False where weights follow otherwise.
    Raises UserError when the class list is empty, CLIP cannot be loaded, or the state does not fit.
    """
    if not class_names:
        raise UserError("the class list is empty: the annotation file names no category")
    text = text_of_state(state or {}, source)
    if text is not None and len(text.raw) != len(class_names):
        raise UserError(
            f"{source}: its vocabulary has {len(text.raw)} classes, the class list {len(class_names)}"
        )
    if state is not None and config.use_language and text is None:
        raise UserError(f"{source}: has no text embeddings of its classes, which use_language=True needs")
    wants_teacher = config.use_visual_distill and training
    fresh_trunk = config.backbone == clip_backbone.NAME and state is None
    if clip is None and ((config.use_language and text is None) or wants_teacher or fresh_trunk):
        clip = configured_clip(config)
    if config.use_language:
        text = text or encode_vocabulary(clip, class_names, config.text_cache_dir, unused)

    def make_detector() -> Detector:
        backbone = _backbone(config, clip, state, load_backbone and state is None)
        if config.use_language:
            return build_richsem(config, text, backbone)
        encoder = _language_classifier(config, text) if text else None
        return build_dino(config, len(class_names), encoder, backbone)

    layout = _layout(config, torch.device(device))
    if state is not None:
        with torch.device("meta"):
            # Sizes that the config claims take no memory before they have been compared with the weights.
            check_state(make_detector(), state, source)
        model = make_detector()
        load_state(model, state, source)
    else:
        model = make_detector()
        _start_at_prior(model)
    # Convolutions answer in the layout of their weights, so the images follow.
    model.backbone.to(memory_format=layout)
    teacher, extra_losses = None, []
    if wants_teacher:
        teacher = Teacher(clip.model.visual).to(device=device, memory_format=layout)
        extra_losses.append(_distillation(config, model.head.classifier.text))
    criterion = build_criterion(config, image_counts, extra_losses)
    select = max(config.num_select, config.fixed_ap_num_select) if config.fixed_ap else config.num_select
    model.to(device)
    if config.torch_compile and training:
        compile_layers(model, torch.device(device))
    return ModelParts(model, criterion.to(device), teacher, PostProcess(select, unused))


def build_official(
    config: Config,
    checkpoint: official.OfficialCheckpoint,
    class_names: Sequence[str],
    image_counts: Sequence[int],
    unused: Sequence[int] = (),
    text: TextEmbeddings | None = None,
    **arguments,
) -> ModelParts:
    """The parts of a run with an official checkpoint's weights, its CLIP as teacher and text encoder.

    class_names: one a column, see `official.column_names`. text: the vocabulary, where it is not to be
    encoded. Further arguments as `build_model`. A file whose CLIP was taken out uses the configured one.
    """
    clip = official_clip(checkpoint)
    if text is None and official.has_language_head(checkpoint.weights):
        clip = clip or configured_clip(config)
        raw = text_embeddings(clip.model, clip.tokenizer, class_names, config.text_cache_dir, unused)
        text = TextEmbeddings(raw, official.logit_scale(checkpoint.weights))
    state = official.convert_state(checkpoint.weights, text.state_dict() if text is not None else None)
    if config.share_vl_proj:
        # One module under two names; some files have only the first.
        for name in [n for n in state if n.startswith("head.classifier.projection.")]:
            twin = name.replace("head.classifier.projection.", "head.semantic_projection.")
            state.setdefault(twin, state[name])
    return build_model(
        config,
        class_names,
        image_counts,
        unused=unused,
        state=state,
        source=checkpoint.path,
        clip=clip,
        **arguments,
    )


def build_richsem(config: Config, text: TextEmbeddings, backbone: Backbone | None = None) -> Detector:
    """The detector with the language classifier, and the semantic branch where the config has it.

    backbone: in place of the config's timm model with its weights.
    """
    dim, width = config.hidden_dim, text.raw.shape[1]
    semantic = _projection(dim, width, config.use_mlp_proj or config.share_vl_proj)
    if config.share_vl_proj:
        own = semantic
    else:
        own = _projection(dim, width, config.use_mlp_proj and config.use_cls_mlp_proj)
    classifier = LanguageClassifier(own, text)
    if config.use_visual_distill:
        head = SemanticHead(dim, classifier, projection=semantic, every_layer=config.distill_aux_layers)
    else:
        head = DecoderHead(dim, classifier)
    if config.enc_cls_agn:
        encoder_classifier = LinearClassifier(dim, len(text.raw))
    else:
        encoder_classifier = _language_classifier(config, text)
    label_embedding = TextLabelEmbedding(dim, text)
    backbone = backbone or timm_backbone(config)
    return build_detector(
        config,
        num_classes=len(text.raw),
        head=head,
        encoder_classifier=encoder_classifier,
        label_embedding=label_embedding,
        backbone=backbone,
    )


def _backbone(config: Config, clip: Clip | None, state: Mapping[str, Tensor] | None, load: bool) -> Backbone:
    if config.backbone != clip_backbone.NAME:
        backbone = timm_backbone(config, load)
        if state is not None:
            backbone.take_pixels_of(state)
        return backbone
    if state is not None:
        return clip_backbone.clip_backbone_of_state(state, config.return_interm_indices)
    return clip_backbone.clip_backbone(clip.model.visual, config.return_interm_indices)


def configured_clip(config: Config) -> Clip:
    """The CLIP that `clip_model` and `clip_pretrained` name."""
    model = load_clip(config.clip_model, config.clip_pretrained)
    name = resolve_name(config.clip_model, config.clip_pretrained)
    try:
        return Clip(model, open_clip.get_tokenizer(name))
    except Exception as error:  # of a text tower whose tokenizer open_clip takes from the Hub
        raise UserError(
            f"the tokenizer of clip_model={name!r} cannot be loaded: {first_line(error)}"
        ) from error


def official_clip(checkpoint: official.OfficialCheckpoint) -> Clip | None:
    """The CLIP inside an official checkpoint; None where it was taken out."""
    inside = official.embedded_clip(checkpoint.weights)
    return Clip(inside, open_clip.get_tokenizer(OPENAI_TOKENIZER)) if inside is not None else None


def clip_of(checkpoint: Checkpoint, config: Config) -> Clip:
    """The CLIP of a checkpoint: the one inside, else the one that its config names."""
    inside = official_clip(checkpoint) if isinstance(checkpoint, official.OfficialCheckpoint) else None
    return inside or configured_clip(config)


def encode_vocabulary(
    clip: Clip, class_names: Sequence[str], cache_dir: str, unused: Sequence[int] = ()
) -> TextEmbeddings:
    """Text embeddings of the class names, from the cache where it has them, with CLIP's logit scale."""
    raw = text_embeddings(clip.model, clip.tokenizer, class_names, cache_dir, unused)
    return TextEmbeddings(raw, clip.model.logit_scale.detach())


def text_of_state(state: Mapping[str, Tensor], source: str | Path = "checkpoint") -> TextEmbeddings | None:
    """The vocabulary inside a checkpoint's model state; None for a model without a language classifier.

    Raises UserError for one that is no vocabulary.
    """
    for owner in ("head.classifier.text", "query_selection.classifier.text"):
        raw, log_scale = state.get(f"{owner}.raw"), state.get(f"{owner}.log_scale")
        if raw is None:
            continue
        if raw.ndim != 2 or log_scale is None or log_scale.numel() != 1:
            raise UserError(f"{source}: its {owner!r} is no matrix of embeddings with a scale")
        return TextEmbeddings(raw, log_scale)
    return None


def load_state(model: Detector, state: Mapping[str, Tensor], source: str | Path = "checkpoint") -> None:
    """Loads a whole model state. Training-only parts that this config leaves out are dropped.

    source: the file that it is from, for messages.
    Raises UserError naming the first tensor that is missing, unknown or of another shape.
    """
    load_model_state(model, _without_spare(model, state), source)


def check_state(model: Detector, state: Mapping[str, Tensor], source: str | Path = "checkpoint") -> None:
    """Raises what `load_state` would; the model may be one without memory, of the device meta."""
    check_model_state(model, _without_spare(model, state), source)


def _without_spare(model: Detector, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = model.state_dict()
    spare = ("denoising.", "head.semantic_projection.")
    return {k: v for k, v in state.items() if k in own or not k.startswith(spare)}


def _language_classifier(config: Config, text: TextEmbeddings) -> LanguageClassifier:
    return LanguageClassifier(_projection(config.hidden_dim, text.raw.shape[1], mlp=False), text)


def _start_at_prior(model: Detector) -> None:
    """Linear classifiers start there by themselves."""
    for part, norm in ((model.head, model.decoder.norm), (model.query_selection, model.query_selection.norm)):
        if isinstance(part.classifier, LanguageClassifier):
            init_focal_prior_(part.classifier, norm)


def _layout(config: Config, device: torch.device) -> torch.memory_format:
    """The memory format that `channels_last` asks for; in float32 a CPU is slower with channels last."""
    last = config.channels_last
    if last == "auto":
        last = choose_precision(config.amp, config.amp_dtype, device).dtype is not None
    return torch.channels_last if last else torch.contiguous_format


def _distillation(config: Config, text: TextEmbeddings) -> DistillationLoss:
    return DistillationLoss(
        text,
        kind=config.distill_type,
        objective=config.clip_distill_objective,
        entropy_weight=config.use_dynamic_distill_weight,
        federated=config.use_fed_on_kd,
        named_only=config.distill_named_only,
        weight=config.distill_loss_coef,
    )


def _projection(dim: int, width: int, mlp: bool) -> nn.Module:
    return MLP(dim, dim, width, depth=4) if mlp else Linear(dim, width, bias=False)
