"""From a checkpoint to the object that users hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.annotations.json_schema import typed_categories
from datasets.annotations.words import Words
from inference.export.info import ONNX, check_fixed, is_exported
from inference.onnx_model import OnnxModel
from inference.predictor import Predictor, Tile
from inference.protocols import ImageModel
from inference.pt2_model import Pt2Model
from inference.thresholds import DEFAULT_SCORE, Score
from inference.torch_model import TorchModel
from inference.vocabulary import WordRequest, ask
from models.richsem.load import checkpoint_config, load_trained, open_checkpoint
from models.richsem.vocabulary import SelectBy
from util.distributed import choose_device
from util.hub import resolve


def load_predictor(
    checkpoint: str | Path,
    *,
    device: str = "auto",
    precision: str | None = None,
    compiled: bool = False,
    score: Score = DEFAULT_SCORE,
    tile: Tile | None = None,
    annotations: str | Path | None = None,
    names: Words | None = None,
    add_names: Words | None = None,
    prompts: Sequence[str] = (),
    examples: str | Path | None = None,
    select_by: SelectBy | None = None,
) -> Predictor:
    """The model of a checkpoint, with the weights, precision and image size of its evaluation.

    checkpoint:  of this project or the official release, or a file of `tools/export.py`.
    device:      'auto' (a GPU where there is one), 'cpu', 'cuda' or 'cuda:N'.
    precision:   'float32', 'bfloat16' or 'float16'; None for that of the checkpoint's evaluation.
    compiled:    encoder and decoder by torch.compile, a minute of the first images; see `TorchModel`.
    score, tile: the lowest score that is kept, and the tiles of large images, see `Predictor`.
    annotations: an LVIS file with the class names of an official checkpoint, and with synonyms for `names`.
    names:       words that replace the model's classes; add_names: that extend them; prompts: templates for
        words that were not trained; examples: a folder of images for such words; select_by: whose scores
        choose the queries. See `WordRequest`.
    Raises UserError for a file that is no checkpoint, for an official one without `annotations`, and for
    words that the model cannot be asked for.
    """
    if is_exported(checkpoint):
        words = not (names is None and add_names is None and examples is None)
        check_fixed(checkpoint, words=words, precision=precision, compiled=compiled)
        return Predictor(_exported_model(checkpoint, device), score, tile)
    opened = open_checkpoint(checkpoint)
    config = checkpoint_config(opened)
    categories = typed_categories(Path(annotations) if annotations else None)
    chosen = choose_device(device)
    names_by_id = {c.id: c.name for c in categories} or None
    trained = load_trained(opened, config, names_by_id, chosen)
    request = WordRequest(names, add_names, prompts, examples, select_by)
    trained = ask(trained, opened, config, request, categories)
    return Predictor(TorchModel(trained, opened, config, chosen, precision, compiled), score, tile)


def _exported_model(path: str | Path, device: str) -> ImageModel:
    local = resolve(path)
    return OnnxModel(local, device) if local.suffix == ONNX else Pt2Model(local)
