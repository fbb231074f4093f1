"""From a checkpoint to the object that users hold."""

from __future__ import annotations

from pathlib import Path

from datasets.annotations.json_errors import load_json
from inference.predictor import Predictor, Tile
from inference.thresholds import DEFAULT_SCORE, Score
from inference.torch_model import TorchModel
from models.richsem.load import checkpoint_config, load_trained, open_checkpoint
from util.distributed import choose_device


def load_predictor(
    checkpoint: str | Path,
    *,
    device: str = "auto",
    precision: str | None = None,
    score: Score = DEFAULT_SCORE,
    tile: Tile | None = None,
    annotations: str | Path | None = None,
) -> Predictor:
    """The model of a checkpoint, with the weights, precision and image size of its evaluation.

    device:      'auto' (a GPU where there is one), 'cpu', 'cuda' or 'cuda:N'.
    precision:   'float32', 'bfloat16' or 'float16'; None for that of the checkpoint's evaluation.
    score, tile: the lowest score that is kept, and the tiles of large images, see `Predictor`.
    annotations: an LVIS file with the class names of an official checkpoint; unused for ours.
    Raises UserError for a file that is no checkpoint, and for an official one without `annotations`.
    """
    opened = open_checkpoint(checkpoint)
    config = checkpoint_config(opened)
    categories = None
    if annotations is not None:
        categories = {int(c["id"]): str(c["name"]) for c in load_json(Path(annotations))["categories"]}
    chosen = choose_device(device)
    trained = load_trained(opened, config, categories, chosen)
    return Predictor(TorchModel(trained, opened, config, chosen, precision), score, tile)
