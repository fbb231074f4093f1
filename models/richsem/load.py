"""The one door for checkpoints: from a file, ours or the official release's, to a trained model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from config import Config, from_official_args, with_overrides
from models.dino.detector import Detector
from models.dino.postprocess import PostProcess
from models.richsem import official_checkpoint as official
from models.richsem.build import Clip, build_model, build_official, clip_of, encode_vocabulary, text_of_state
from models.richsem.classifier import TextEmbeddings
from models.richsem.official_checkpoint import OfficialCheckpoint
from models.richsem.text_embeddings import templates_of, text_embeddings
from models.richsem.vocabulary import NewRows, Vocabulary, change_vocabulary
from util.checkpoint import Checkpoint, is_ours, read_content
from util.errors import UserError
from util.hub import resolve

# Cosine above which two embeddings of one name come from one text tower. Rounding costs 1e-6; another tower
# is far below.
SAME_TOWER = 0.999


@dataclass(frozen=True)
class TrainedModel:
    """A model ready for inference.

    model:       in evaluation mode, on the asked device.
    postprocess: its output -> detections.
    class_names: one for each class column; an imported official model has columns that are no class, 'none',
        which once published are ''.
    columns:     the trained column of each class, -1 for a word that the model was not trained on.
    """

    model: Detector
    postprocess: PostProcess
    class_names: tuple[str, ...]
    columns: tuple[int, ...]

    @property
    def unused(self) -> tuple[int, ...]:
        """Columns that are no class."""
        return self.postprocess.unused


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
    return TrainedModel(parts.model.eval(), parts.postprocess, names, tuple(range(len(names))))


def text_of_model(trained: TrainedModel) -> TextEmbeddings:
    """The vocabulary of a model that has a text classifier."""
    text = text_of_state(trained.model.state_dict())
    assert text is not None
    return text


def text_rows(
    trained: TrainedModel,
    checkpoint: Checkpoint,
    config: Config,
    words: Sequence[str],
    prompts: Sequence[str] = (),
    clip: Clip | None = None,
) -> Float[Tensor, "K E"]:
    """Text embeddings of words by the text tower that the checkpoint's own classes were encoded with.

    prompts: templates with {} where the word goes; none are those of training. An official checkpoint has
    the tower inside; ours names it by `clip_model` and `clip_pretrained`. clip: that tower, where it is
    loaded already.
    Raises UserError where it cannot be loaded or is another one.
    """
    templates = templates_of(prompts)
    clip = clip or clip_of(checkpoint, config)
    text = text_of_model(trained)
    known = next(i for i in range(len(text.raw)) if i not in trained.unused)
    again = encode_vocabulary(clip, [trained.class_names[known]], config.text_cache_dir).raw[0]
    row = text.raw[known].to(again)
    if again.shape != row.shape or F.cosine_similarity(again, row, dim=0) < SAME_TOWER:
        raise UserError(
            f"clip_pretrained={config.clip_pretrained!r} is not the CLIP that {checkpoint.path} was trained "
            f"with: its text embedding of {trained.class_names[known]!r} is another"
        )
    return text_embeddings(clip.model, clip.tokenizer, words, config.text_cache_dir, templates=templates)


def with_vocabulary(
    trained: TrainedModel,
    config: Config,
    vocabulary: Vocabulary,
    rows: Float[Tensor, "K E"] | NewRows | None,
) -> TrainedModel:
    """The model asked for other classes. It shares its weights with `trained`, which stays as it is.

    rows: of `vocabulary.new_names`, see `text_rows` and `models.richsem.examples`.
    """
    if isinstance(rows, Tensor):
        rows = NewRows.of_text(rows, text_of_model(trained).log_scale)
    shared: dict[int, Any] = {id(t): t for t in (*trained.model.parameters(), *trained.model.buffers())}
    model = copy.deepcopy(trained.model, shared)
    model = change_vocabulary(model, vocabulary, rows, one_class_encoder=config.enc_cls_agn)
    unused = trained.unused if vocabulary.extends else ()
    postprocess = PostProcess(trained.postprocess.num_select, unused)
    return TrainedModel(model, postprocess, vocabulary.names, vocabulary.columns)
