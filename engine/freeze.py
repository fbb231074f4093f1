"""Parts of the model that do not train, by name: for fine-tuning on little data."""

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from util.errors import UserError, nearest

_log = logging.getLogger(__name__)


def freeze(model: nn.Module, names: Sequence[str]) -> None:
    """Takes the parameters that `names` choose out of training, before the optimizer is built.

    names: each a parameter, a module with all that is in it ('encoder', 'backbone.body'), or a pattern with
        *, ? and [] that parameter names match as a whole ('decoder.layers.[0-3].*').
    Raises UserError for a name that fits no parameter, with the nearest that does, and where nothing is left
    to train.
    """
    if not names:
        return
    # A shared parameter goes by each of its names.
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        chosen = [parameter for own, parameter in parameters.items() if _is_chosen(own, name)]
        if not chosen:
            raise UserError(
                f"freeze: no parameter is called {name!r} or lies in it.{_hint(name, parameters)}"
            )
        for parameter in chosen:
            parameter.requires_grad_(False)
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    total, trained = sum(n for n, _ in sizes), [n for n, trains in sizes if trains]
    if not trained:
        raise UserError(f"freeze={list(names)} leaves no parameter to train: name fewer")
    _log.info(
        "freeze: %d of %d parameter tensors train, %.2f of %.2f million numbers",
        *(len(trained), len(sizes), sum(trained) / 1e6, total / 1e6),
    )


def was_frozen(parameter: str, config: Mapping[str, Any]) -> bool:
    """Whether a parameter did not train under a checkpoint's config."""
    names, words = (config.get(key) or () for key in ("freeze", "backbone_freeze_keywords"))
    return any(_is_chosen(parameter, name) for name in names) or any(word in parameter for word in words)


def hold_frozen_statistics(model: nn.Module) -> None:
    """Puts batch norms whose parameters are frozen into evaluation mode, after `model.train()`.

    Their running statistics belong to the frozen weights; a few small batches would spoil them. Other norms
    keep no statistics. Dropout stays on, frozen or not.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            own = list(module.parameters())
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()


def _is_chosen(parameter: str, name: str) -> bool:
    if any(sign in name for sign in "*?["):
        return fnmatchcase(parameter, name)
    return parameter == name or parameter.startswith(name.rstrip(".") + ".")


def _hint(name: str, parameters: dict[str, nn.Parameter]) -> str:
    """The nearest module or parameter, else the outermost modules."""
    modules = {}
    for own in parameters:
        parts = own.split(".")
        modules.update(dict.fromkeys(".".join(parts[:n]) for n in range(1, len(parts) + 1)))
    outermost = dict.fromkeys(own.partition(".")[0] for own in parameters)
    return nearest(name, modules) or f" The model has {', '.join(outermost)}"
