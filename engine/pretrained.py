"""Starting from another checkpoint's weights, also with other classes (`--pretrain_model_path`)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.checkpoint import evaluated_weights
from util.errors import UserError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TransferRules:
    """What of a checkpoint is taken into a model of other classes.

    ignored: parts of tensor names that stay as initialised (official `--finetune_ignore`).
    own: parts of names that always stay the model's own: the text embeddings are this run's vocabulary.
    class_rows: ends of names whose first dimension is the class; their rows are matched by class name.
    """

    ignored: tuple[str, ...] = ()
    own: tuple[str, ...] = (".text.",)
    class_rows: tuple[str, ...] = ("classifier.weight", "classifier.bias")


@dataclass(frozen=True)
class Transfer:
    """What happened: names of tensors loaded as they are, loaded in part by class name, and
    skipped -> why."""

    loaded: tuple[str, ...]
    by_class: tuple[str, ...]
    skipped: dict[str, str]


def load_pretrained(
    model: nn.Module,
    content: Mapping[str, Any],
    class_names: Sequence[str],
    rules: TransferRules,
    path: str | Path,
) -> Transfer:
    """Loads what fits of a checkpoint's evaluated weights into `model`, and logs what was skipped.

    content: of the checkpoint at `path`; its `class_names` may be empty where they are not known.
    class_names: the model's. Raises UserError when nothing fits.
    """
    own, saved_names = model.state_dict(), content["class_names"]
    same_classes = list(saved_names) == list(class_names)
    taken: dict[str, Tensor] = {}
    by_class: list[str] = []
    skipped: dict[str, str] = {}
    for name, tensor in evaluated_weights(content).items():
        reason = _why_not(name, tensor, own, rules)
        if name.endswith(rules.class_rows) and not same_classes and not reason.startswith(("kept", "not")):
            rows = _rows_by_name(tensor, own[name], saved_names, class_names)
            if rows is None:
                skipped[name] = "rows of other classes"
            else:
                taken[name] = rows
                by_class.append(name)
        elif reason:
            skipped[name] = reason
        else:
            taken[name] = tensor
    if not taken:
        raise UserError(f"{path}: not one tensor fits this model")
    model.load_state_dict(taken, strict=False)
    _report(path, own, taken, by_class, skipped)
    loaded = tuple(name for name in taken if name not in by_class)
    return Transfer(loaded, tuple(by_class), skipped)


def _why_not(name: str, tensor: Tensor, own: Mapping[str, Tensor], rules: TransferRules) -> str:
    """The reason to leave a tensor out, '' when it fits."""
    word = next((word for word in rules.ignored if word in name), None)
    if word is not None:
        return f"kept as initialised (--finetune_ignore {word})"
    if name not in own:
        return "not in this model"
    if any(part in name for part in rules.own):
        return "kept: this run's own vocabulary"
    if own[name].shape != tensor.shape:
        return f"shape {tuple(tensor.shape)} there, {tuple(own[name].shape)} here"
    return ""


def _rows_by_name(
    saved: Tensor, own: Tensor, saved_names: Sequence[str], names: Sequence[str]
) -> Tensor | None:
    """`own` with the rows of the classes that both know; None where there are none.

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
    taken: Mapping[str, Tensor],
    by_class: Sequence[str],
    skipped: Mapping[str, str],
) -> None:
    _log.info("%s: %d of this model's %d tensors loaded", path, len(taken), len(own))
    if by_class:
        _log.info("rows of classes that both know: %s", ", ".join(by_class))
    for name, reason in skipped.items():
        _log.info("skipped %s: %s", name, reason)
    fresh = [name for name in own if name not in taken and name not in skipped]
    if fresh:
        _log.info("not in the checkpoint, as initialised: %s", ", ".join(fresh))
