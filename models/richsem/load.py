"""The one door for checkpoints: from a file, ours or the official release's, to a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from config import Config, from_official_args, with_overrides
from models.dino.detector import Detector
from models.dino.postprocess import PostProcess
from models.richsem import official_checkpoint as official
from models.richsem.build import build_model, build_official
from models.richsem.official_checkpoint import OfficialCheckpoint
from util.checkpoint import Checkpoint, is_ours, read_content
from util.errors import UserError
from util.hub import resolve


@dataclass(frozen=True)
class TrainedModel:
    """A model ready for inference.

    model:       in evaluation mode, on the asked device.
    postprocess: its output -> detections.
    class_names: one for each class column; an imported official model has columns that are no class, 'none',
        which once published are ''.
    """

    model: Detector
    postprocess: PostProcess
    class_names: tuple[str, ...]


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint of ours or of the official release, which becomes an `OfficialCheckpoint`.

    path: a file, a published folder, or an address of the Hub (`util.hub.resolve`).
    Raises UserError for a file that is missing, damaged, or neither.
    """
    path = resolve(path)
    content = read_content(path)
    if is_ours(content):
        return Checkpoint.from_content(content, path)
    try:
        found = official.as_official(content, path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if found is None:
        raise UserError(f"{path}: neither a checkpoint of this project nor of the official release")
    return found


def checkpoint_config(checkpoint: Checkpoint, overrides: Mapping[str, Any] | None = None) -> Config:
    """The config that a checkpoint carries, with `overrides` on top. Raises UserError where it is invalid."""
    if isinstance(checkpoint, OfficialCheckpoint):
        config = from_official_args(checkpoint.arguments)
    else:
        config = Config.from_dict(checkpoint.config)
    return with_overrides(config, overrides or {})


def load_trained(
    checkpoint: Checkpoint,
    config: Config,
    categories: Mapping[int, str] | None = None,
    device: torch.device | str = "cpu",
) -> TrainedModel:
    """The checkpoint's model with the weights that training evaluated: the average where one is kept.

    categories: id -> name of the LVIS categories, which an official checkpoint lacks; unused for ours.
    Raises UserError where weights and config do not fit, and where the class names are not known.
    """
    if isinstance(checkpoint, OfficialCheckpoint):
        if categories is None:
            raise UserError(
                f"{checkpoint.path}: an official checkpoint has no class names; name an LVIS annotation file"
            )
        columns = official.class_columns(checkpoint.weights, checkpoint.arguments)
        names = official.column_names(categories, columns)
        unused = official.unused_columns(categories, columns)
        parts = build_official(
            config, checkpoint, names, [0] * columns, unused=unused, device=device, training=False
        )
    else:
        names = tuple(checkpoint.class_names)
        if not names:
            raise UserError(f"{checkpoint.path}: has no class names, so its detections have no meaning")
        parts = build_model(
            config,
            class_names=names,
            image_counts=[0] * len(names),
            device=device,
            unused=[column for column, name in enumerate(names) if not name],
            training=False,
            state=checkpoint.evaluated_weights,
            source=checkpoint.path,
        )
    return TrainedModel(parts.model.eval(), parts.postprocess, names)
