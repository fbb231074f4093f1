"""CLIP models through open_clip: by name and tag, or from local files."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import nn

from util.errors import UserError, first_line, nearest
from util.hub import offline_if_unreachable
from util.torch_file import read_torch_file

logger = logging.getLogger(__name__)

# The checkout: configs name files of it by relative paths, and may be used from any folder.
ROOT = Path(__file__).resolve().parents[2]

# Ends of names of weights that are not torch's.
_OTHER_FORMATS = (".safetensors", ".npz", ".npy")

# OpenAI trained its models with QuickGELU; open_clip lists them under separate names.
QUICK_GELU = {n.removesuffix("-quickgelu"): n for n in open_clip.list_models() if "-quickgelu" in n}


def load_clip(name: str, pretrained: str) -> nn.Module:
    """A frozen CLIP model in evaluation mode, float32, on the CPU.

    name: an open_clip name, or the path of its JSON configuration (`clip_model`); 'RN50' and OpenAI's other
    names select the QuickGELU variants when the weights are OpenAI's or a local file. pretrained: an
    open_clip tag or a local weight file (`clip_pretrained`). A relative path is looked up in the current
    folder, then in the checkout.
    Raises UserError for an unknown name or tag, a missing or damaged file, or weights that do not fit.
    """
    known = resolve_name(name, pretrained)
    file = located(pretrained)
    if not file.is_file():
        if "/" in pretrained or file.suffix:
            raise UserError(f"clip_pretrained={pretrained!r} does not exist")
        tags = open_clip.list_pretrained_tags_by_model(known)
        if pretrained not in tags:
            raise UserError(
                f"clip_pretrained={pretrained!r} is neither a file nor a tag of {known!r}, whose tags are "
                f"{', '.join(tags) or 'none'}.{nearest(pretrained, tags)}"
            )
        logger.info("CLIP %s %r is needed: from open_clip's cache, or else downloaded", known, pretrained)
    elif file.suffix not in _OTHER_FORMATS:
        # open_clip compares no checksums.
        read_torch_file(file)
    try:
        weights = str(file) if file.is_file() else pretrained
        with nullcontext() if file.is_file() else _download():
            model = open_clip.create_model(known, pretrained=weights, precision="fp32")
    except Exception as error:  # open_clip, torch and the hub raise many kinds
        if not file.is_file():
            raise UserError(
                f"clip_pretrained={pretrained!r} of {known!r} could not be downloaded; "
                f"download it elsewhere and set clip_pretrained to the file"
            ) from error
        # The first line only says that loading failed, the second names the tensor.
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__
        raise UserError(f"{pretrained} does not fit {known!r}: {reason[:300]}") from error
    if file.is_file() and (published := normalisation(known)):
        visual: Any = model.visual
        visual.image_mean, visual.image_std = published
    return freeze(model)


def normalisation(known: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation that all of a model's published weights take; None where they differ.

    open_clip knows them by tag: a local file of a SigLIP's or MobileCLIP's weights would get OpenAI's.
    """
    tags = open_clip.list_pretrained_tags_by_model(known)
    configs = [open_clip.get_pretrained_cfg(known, tag) for tag in tags]
    pairs = {
        (tuple(c.get("mean") or OPENAI_DATASET_MEAN), tuple(c.get("std") or OPENAI_DATASET_STD))
        for c in configs
    }
    return pairs.pop() if len(pairs) == 1 else None


@contextmanager
def _download() -> Iterator[None]:
    """For weights that open_clip may download. The errors that it logs before it raises them are dropped."""
    root = logging.getLogger()
    with offline_if_unreachable():
        root.addFilter(_is_no_error)
        try:
            yield
        finally:
            root.removeFilter(_is_no_error)


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


def located(name: str) -> Path:
    """The file of a relative path: in the current folder, else in the checkout where only that has it."""
    path = Path(name)
    return path if path.is_file() or not (ROOT / path).is_file() else ROOT / path


def freeze(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, float32, without gradients."""
    return model.float().eval().requires_grad_(False)


def resolve_name(name: str, pretrained: str) -> str:
    """open_clip's name of the model. Registers a local JSON configuration with open_clip first."""
    if name.endswith(".json"):
        path = located(name)
        if not path.is_file():
            raise UserError(f"clip_model={name!r} does not exist")
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"clip_model={name!r} is not JSON: {first_line(error)}") from error
        open_clip.add_model_config(path)
        if path.stem not in open_clip.list_models():
            raise UserError(f"clip_model={name!r} lacks embed_dim, vision_cfg or text_cfg")
        return path.stem
    names = open_clip.list_models()
    if name not in names:
        raise UserError(f"clip_model={name!r} is not an open_clip model.{nearest(name, names)}")
    if pretrained == "openai" or located(pretrained).is_file():
        return QUICK_GELU.get(name, name)
    return name


def clip_from_state(state: dict[str, torch.Tensor]) -> nn.Module:
    """The CLIP model whose OpenAI-named weights these are (as inside an official RichSem checkpoint)."""
    try:
        model = open_clip.model.build_model_from_openai_state_dict(dict(state), cast_dtype=torch.float32)
        # The builder rounds the weights to float16; load them again unrounded.
        model = freeze(model)
        model.load_state_dict(state, strict=False)
    except Exception as error:  # open_clip reads sizes off names and shapes, and checks none of them
        raise UserError(f"the checkpoint's CLIP is incomplete: {first_line(error)}") from error
    return model
