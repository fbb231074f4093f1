"""Starting from another checkpoint's weights, also with other classes (`--pretrain_model_path`)."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from util.checkpoint import Checkpoint
from util.errors import UserError

_log = logging.getLogger(__name__)

# Parts of names that always stay the model's own: the text embeddings are this run's vocabulary.
_OWN = (".text.",)
# Ends of names whose first dimension is the class; their rows are matched by class name.
_CLASS_ROWS = ("classifier.weight", "classifier.bias")


def load_pretrained(
    model: nn.Module, checkpoint: Checkpoint, class_names: Sequence[str], ignored: Sequence[str] = ()
) -> None:
    """Loads whatever fits of a checkpoint's evaluated weights into `model`; logs what was skipped, and why.

    class_names: the model's. ignored: parts of tensor names that stay as initialised (official
    `--finetune_ignore`). Raises UserError when nothing fits.
    """
    own, saved_names = model.state_dict(), checkpoint.class_names
    same_classes = list(saved_names) == list(class_names)
    loaded: dict[str, Tensor] = {}
    by_class: list[str] = []
    skipped: dict[str, str] = {}
    for name, tensor in checkpoint.evaluated_weights.items():
        word = next((word for word in ignored if word in name), None)
        if word is not None:
            skipped[name] = f"kept as initialised (--finetune_ignore {word})"
        elif name not in own:
            skipped[name] = "not in this model"
        elif any(part in name for part in _OWN):
            skipped[name] = "kept: this run's own vocabulary"
        elif name.endswith(_CLASS_ROWS) and not same_classes:
            rows = _rows_by_name(tensor, own[name], saved_names, class_names)
            if rows is None:
                skipped[name] = "rows of other classes"
            else:
                loaded[name] = rows
                by_class.append(name)
        elif own[name].shape != tensor.shape:
            shapes = f"{tuple(tensor.shape)} in the checkpoint, {tuple(own[name].shape)} in this model"
            skipped[name] = f"its shape is {shapes}"
        else:
            loaded[name] = tensor
    if not loaded:
        raise UserError(f"{checkpoint.path}: not one tensor fits this model")
    model.load_state_dict(loaded, strict=False)
    _report(checkpoint.path, own, loaded, by_class, skipped)


def _rows_by_name(
    saved: Tensor, own: Tensor, saved_names: Sequence[str], names: Sequence[str]
) -> Tensor | None:
    """`own` with the rows of the classes that both have; None where there are none.

    Saved classes [cat, dog], own [dog, cow]: row 0 becomes saved row 1, row 1 stays.
    """
    index = {name: i for i, name in enumerate(saved_names)}
    pairs = [(i, index[name]) for i, name in enumerate(names) if name in index]
    fits = saved.shape[1:] == own.shape[1:] and len(saved) == len(saved_names) and len(own) == len(names)
    if not (pairs and fits):
        return None
    merged = own.clone()
    here, there = torch.tensor(pairs).unbind(1)
    merged[here.to(own.device)] = saved[there].to(own)
    return merged


def _report(
    path: str | Path,
    own: Mapping[str, Tensor],
    loaded: Mapping[str, Tensor],
    by_class: Sequence[str],
    skipped: Mapping[str, str],
) -> None:
    _log.info("%s: %d of this model's %d tensors loaded", path, len(loaded), len(own))
    if by_class:
        _log.info("matched by class name: the rows of %s", ", ".join(by_class))
    for name, reason in skipped.items():
        _log.info("skipped %s: %s", name, reason)
    fresh = [name for name in own if name not in loaded and name not in skipped]
    if fresh:
        _log.info("not in the checkpoint, kept as initialised: %s", ", ".join(fresh))
