"""Checkpoints of the official RichSem release: recognised, read without running code, and renamed.

An official file holds `model` (the names below) and `args`, an argparse Namespace. Only that one plain
class is allowed when it is unpickled.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.richsem.clip import clip_from_state
from util.checkpoint import Checkpoint
from util.checkpoint_content import EntryError, check_finite, check_plain, check_tensors
from util.errors import UserError
from util.torch_file import bare_name

# official name -> ours, first match wins. Heads that layers share stand under every layer's number.
_RENAMES: tuple[tuple[str, str], ...] = (
    (r"backbone\.0\.body\.", "backbone.body."),
    (r"input_proj\.", "neck.projections."),
    (r"transformer\.level_embed$", "encoder.level_embed"),
    (r"transformer\.(encoder|decoder)\.layers\.(\d+)\.(linear[12])\.", r"\1.layers.\2.ffn.\3."),
    (r"transformer\.(encoder|decoder)\.layers\.", r"\1.layers."),
    (r"transformer\.decoder\.norm\.", "decoder.norm."),
    (r"transformer\.decoder\.ref_point_head\.", "decoder.query_position."),
    (r"transformer\.tgt_embed\.", "query_selection.content."),
    (r"transformer\.enc_output\.", "query_selection.projection."),
    (r"transformer\.enc_output_norm\.", "query_selection.norm."),
    (r"transformer\.enc_out_bbox_embed\.", "query_selection.box_head."),
    (r"transformer\.enc_out_class_embed\.dino_visual_proj\.", "query_selection.classifier.projection."),
    (r"transformer\.enc_out_class_embed\.(weight|bias)$", r"query_selection.classifier.\1"),
    (r"(?:transformer\.decoder\.)?bbox_embed\.\d+\.", "head.box_head."),
    (r"(?:transformer\.decoder\.)?class_embed\.\d+\.", "head.classifier."),
    (r"(?:transformer\.decoder\.)?class_embed\.dino_visual_proj\.", "head.classifier.projection."),
    (r"(?:transformer\.decoder\.)?class_embed\.clip_visual_proj\.", "head.semantic_projection."),
    (r"(?:transformer\.decoder\.)?class_embed\.label_proj\.", "denoising.label_embedding.projection."),
)
_COMPILED = tuple((re.compile(pattern), ours) for pattern, ours in _RENAMES)
_CLIP = re.compile(r"(?:transformer\.)?(?:decoder\.)?(?:enc_out_)?class_embed\.clip\.")
_CLIP_OWNERS = ("class_embed.clip.", "transformer.enc_out_class_embed.clip.")
# Scales are read by `logit_scale`; frozen batch norms count no batches.
_DROPPED = re.compile(r".*class_embed\.logit_scale$|.*num_batches_tracked$")


LVIS_COLUMNS = 1204
MOST_COLUMNS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class OfficialCheckpoint(Checkpoint):
    """A checkpoint of the official release; `model` holds its weights under our names.

    weights:   official names -> tensors, those of CLIP among them.
    arguments: the release's options, plain values.
    """

    weights: dict[str, Tensor]
    arguments: dict[str, object]


def as_official(content: object, path: str | Path = "") -> OfficialCheckpoint | None:
    """The official checkpoint that `content` of the file `path` is, or None when it is something else.

    Raises UserError for one that is damaged.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        return None
    weights = {bare_name(str(name)): value for name, value in content["model"].items()}
    if "transformer.level_embed" not in weights:
        return None
    arguments = {} if content.get("args") is None else content["args"]
    if isinstance(arguments, argparse.Namespace):
        arguments = vars(arguments)
    try:
        check_tensors(content["model"])
        model = convert_state(weights)
        check_finite(model)
    except EntryError as error:
        raise UserError(f"damaged checkpoint (its 'model' {error})") from None
    try:
        if not isinstance(arguments, Mapping):
            raise EntryError(f"is of type {type(arguments).__name__}")
        check_plain(arguments)
    except EntryError as error:
        raise UserError(f"damaged checkpoint (its 'args' {error})") from None
    return OfficialCheckpoint(path=Path(path), model=model, weights=weights, arguments=dict(arguments))


def our_name(official: str) -> str | None:
    """Our name of an official parameter or buffer; None for those we do not keep (CLIP, counters)."""
    if _CLIP.match(official) or _DROPPED.match(official):
        return None
    for pattern, ours in _COMPILED:
        if pattern.match(official):
            return pattern.sub(ours, official, count=1)
    raise UserError(f"the official checkpoint has a tensor of unknown role: {official:.100}")


def convert_state(model: Mapping[str, Tensor], text: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Official weights under our names.

    text: `raw` (C, E) embeddings of the class columns and `log_scale`, for a language classifier.
    Raises UserError when heads that our model shares differ between layers.
    """
    state: dict[str, Tensor] = {}
    for official, tensor in model.items():
        ours = our_name(official)
        if ours is None:
            continue
        if ours in state and not torch.equal(state[ours], tensor):
            raise UserError(f"the official checkpoint has heads that differ by layer: {official}")
        state[ours] = tensor
    for owner in ("head.classifier", "query_selection.classifier", "denoising.label_embedding"):
        if any(name.startswith(f"{owner}.projection.") for name in state):
            state.update({f"{owner}.text.{k}": v for k, v in (text or {}).items()})
    if "head.classifier.weight" in state:
        # Denoising content comes from the linear classifier's own rows.
        for part in ("weight", "bias"):
            state[f"denoising.label_embedding.classifier.{part}"] = state[f"head.classifier.{part}"]
    return state


def logit_scale(model: Mapping[str, Tensor]) -> Tensor:
    """Log of the scale of the checkpoint's cosines (decoder and encoder have the same)."""
    for name in ("class_embed.logit_scale", "transformer.enc_out_class_embed.logit_scale"):
        if name in model and model[name].numel() == 1:
            return model[name].reshape(())
    raise UserError("the official checkpoint has text projections but no logit_scale, a number")


def has_language_head(model: Mapping[str, Tensor]) -> bool:
    """Whether a classifier of the model, in decoder or encoder, compares with text embeddings."""
    return any(".dino_visual_proj." in name for name in model)


def class_columns(model: Mapping[str, Tensor], arguments: Mapping[str, object]) -> int:
    """How many class columns the official model has (LVIS: 1204, column = LVIS id, column 0 unused)."""
    for name in ("class_embed.0.weight", "transformer.decoder.class_embed.0.weight"):
        if name in model and model[name].dim():
            return len(model[name])
    columns = arguments.get("num_classes", LVIS_COLUMNS)
    if type(columns) is not int or not 0 < columns <= MOST_COLUMNS:
        raise UserError(f"damaged checkpoint (its 'args' have num_classes={str(columns)[:40]!r})")
    return columns


def column_names(categories: Mapping[int, str], columns: int) -> tuple[str, ...]:
    """Names by column from LVIS's id -> name: column = id, 'none' where no category has the id.

    Raises UserError when an id lies outside the columns.
    """
    names = ["none"] * columns
    for index, name in categories.items():
        if not 0 <= index < columns:
            raise UserError(f"category id {index} ({name!r}) does not fit the model's {columns} columns")
        names[index] = name
    return tuple(names)


def unused_columns(categories: Mapping[int, str], columns: int) -> tuple[int, ...]:
    """Columns that are no category's id: column 0 for LVIS."""
    return tuple(i for i in range(columns) if i not in categories)


def embedded_clip(model: Mapping[str, Tensor]) -> nn.Module | None:
    """The CLIP inside an official checkpoint: the decoder's, else the encoder's, else None."""
    for owner in _CLIP_OWNERS:
        state = {k[len(owner) :]: v for k, v in model.items() if k.startswith(owner)}
        if state:
            return clip_from_state(state)
    return None
