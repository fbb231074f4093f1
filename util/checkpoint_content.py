"""What every entry of a checkpoint must be. A file from anywhere is checked once, before anything uses it."""

from __future__ import annotations

import math
import random
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from util.nonfinite import first_nonfinite

# Bounds on plain data, so that containers which hold one another, or themselves, cost no time.
MOST_VALUES = 1_000_000
_DEEPEST = 30
_LARGEST = 2**62
_GROUPS = ("", "r", "c", "f")
# What the parts of `run` must be where they are there.
_RUN = {"dataset_file": str, "seed": int, "fix_size": bool}
# AdamW's state of a parameter.
_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}
_MERSENNE_WORDS = 624


class EntryError(Exception):
    """What is wrong with an entry, as the end of a sentence that begins with its name."""


def check_entries(entries: Mapping[str, Any]) -> None:
    """Raises EntryError naming the first entry of another type, shape or range, or that contradicts another.

    entries: by the names of `Checkpoint`'s fields; those that are absent are not missed here.
    """
    for name, value in entries.items():
        try:
            _CHECKS[name](value)
        except EntryError as error:
            raise EntryError(f"its {name!r} {error}") from None
    _check_class_lists(entries)
    if entries.get("optimizer") is not None:
        _check_training_state(entries)


def check_tensors(state: Mapping[Any, Any]) -> None:
    """Raises EntryError where `state` is not names and plain tensors, each with all of its values."""
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise EntryError(f"has a name of type {_kind(name)}")
        _check_tensor(name, tensor)


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Raises EntryError naming a tensor with a value that is not finite."""
    if (name := first_nonfinite(state)) is not None:
        raise EntryError(f"holds values that are not finite, in {name!r}")


def check_plain(value: Any) -> None:
    """Raises EntryError for anything but dicts with names as keys, lists, numbers, text and None."""
    pending, seen = [(0, value)], 0
    while pending:
        depth, item = pending.pop()
        seen += 1
        if seen > MOST_VALUES or depth > _DEEPEST:
            raise EntryError("holds too many values, or too deeply nested ones")
        if isinstance(item, Mapping):
            if not all(isinstance(key, str) for key in item):
                raise EntryError("has a key that is no text")
            pending += ((depth + 1, part) for pair in item.items() for part in pair)
        elif isinstance(item, (list, tuple)):
            pending += ((depth + 1, part) for part in item)
        else:
            _check_value(item)


def _check_value(item: Any) -> None:
    if isinstance(item, str):
        # Such text is no path, and cannot be written to a log.
        if "\0" in item or (not item.isascii() and any("\ud800" <= c <= "\udfff" for c in item)):
            raise EntryError("has text that is no text")
    elif isinstance(item, int):
        if abs(item) > _LARGEST:
            raise EntryError("has a number beyond 64 bits")
    elif not (item is None or isinstance(item, float)):
        raise EntryError(f"holds a {_kind(item)}, which is not plain data")


def _check_tensor(name: str, tensor: Any) -> None:
    if not isinstance(tensor, Tensor):
        raise EntryError(f"holds a {_kind(tensor)} in place of the tensor {name!r}")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        raise EntryError(f"holds {name!r} in a form that no weight has ({tensor.layout}, {tensor.dtype})")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise EntryError(f"claims more values for {name!r} than the file has")


def _kind(value: Any) -> str:
    return type(value).__name__


def _require(right: bool, what: str) -> None:
    if not right:
        raise EntryError(what)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _is_number(value: Any) -> bool:
    return (type(value) is int and abs(value) <= _LARGEST) or (type(value) is float and math.isfinite(value))


def _shown(value: Any) -> str:
    """A value for a message, cut."""
    return "beyond 64 bits" if type(value) is int and abs(value) > _LARGEST else reprlib.repr(value)


def _of(*kinds: type, optional: bool = False) -> Callable[[Any], None]:
    """A check that a value is of one of the given types; of None too, where it is optional."""

    def check(value: Any) -> None:
        fits = isinstance(value, kinds) or (optional and value is None)
        _require(fits, f"is of type {_kind(value)}")

    return check


def _plain(*kinds: type) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        _of(*kinds)(value)
        check_plain(value)

    return check


def _check_model(value: Any) -> None:
    _of(Mapping)(value)
    check_tensors(value)
    check_finite(value)


def _check_list(fits: Callable[[Any], bool], what: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        _plain(list, tuple)(value)
        for item in value:
            _require(fits(item), f"has the entry {_shown(item)}, which is no {what}")

    return check


def _check_run(value: Any) -> None:
    _plain(Mapping)(value)
    for name, kind in _RUN.items():
        if name in value:
            _require(type(value[name]) is kind, f"has {name!r} of type {_kind(value[name])}")
    sets = value.get("sets", {})
    named = isinstance(sets, Mapping) and all(isinstance(names, Mapping) for names in sets.values())
    _require(
        named and all(type(new) is str for names in sets.values() for new in names.values()),
        "has 'sets' that do not map class names to class names",
    )
    # One data set is a string, several are a list.
    paths = value.get("data_path", "")
    several = isinstance(paths, (list, tuple)) and len(paths) > 1 and all(type(p) is str for p in paths)
    _require(type(paths) is str or several, f"has {'data_path'!r} of type {_kind(paths)}")


def _check_count(value: Any) -> None:
    _require(type(value) is int, f"is of type {_kind(value)}")
    _require(_is_count(value), f"is {_shown(value)}")


def _check_best_ap(value: Any) -> None:
    _of(int, float, optional=True)(value)
    # -1 stands for an undefined AP.
    _require(
        value is None or (_is_number(value) and -1 <= value <= 1), f"is {_shown(value)}, not within -1..1"
    )


def _check_early_stopping(value: Any) -> None:
    _plain(Mapping)(value)
    if value:
        _check_best_ap(value.get("reference"))
        _require(_is_count(value.get("stale", 0)), "counts something other than evaluations")


def _check_progress(value: Any) -> None:
    """Seconds, and sums and counts of the losses: over all ranks, and of each since the last log line."""
    _plain(Mapping)(value)
    if value:
        windows = value.get("windows")
        _require(_is_number(value.get("seconds")), "has no 'seconds'")
        _require(isinstance(windows, (list, tuple)), "has no 'windows'")
        for part in (value.get("epoch"), *windows):
            _require(
                isinstance(part, Mapping) and part.keys() == {"sums", "counts"}, "has no sums and counts"
            )
            sums, counts = part["sums"], part["counts"]
            _require(isinstance(sums, Mapping) and isinstance(counts, Mapping), "has no sums and counts")
            _require(sums.keys() == counts.keys(), "has sums without counts")
            _require(all(map(_is_number, sums.values())), "has a sum that is no number")
            _require(all(_is_count(n) and n > 0 for n in counts.values()), "has a count that is none")


def _check_optimizer(value: Any) -> None:
    """Parameter name -> the optimizer's numbers and tensors of it."""
    _of(Mapping, optional=True)(value)
    tensors: dict[str, Any] = {}
    for name, state in (value or {}).items():
        if not (isinstance(name, str) and isinstance(state, Mapping)):
            raise EntryError(f"does not map names to states (but a {_kind(name)} to a {_kind(state)})")
        if not state.keys() >= _MOMENTS:
            raise EntryError(f"lacks {', '.join(sorted(_MOMENTS - state.keys()))} of {name!r}")
        tensors |= {f"{name}.{key}": item for key, item in state.items() if not _is_number(item)}
    check_tensors(tensors)
    check_finite(tensors)


def _check_scheduler(value: Any) -> None:
    _of(Mapping, optional=True)(value)
    if value is not None:
        _require(_is_count(value.get("position")), "has no 'position', a number of steps")
        steps = value.get("steps_per_epoch")
        _require(_is_count(steps) and steps > 0, "has no 'steps_per_epoch', a number of steps")


def _check_scaler(value: Any) -> None:
    """A GradScaler's state; empty for one that is switched off."""
    _of(Mapping, optional=True)(value)
    if value:
        for key in ("scale", "growth_factor", "backoff_factor", "growth_interval"):
            number = value.get(key)
            _require(_is_number(number) and number > 0, f"has no {key!r}, a positive number")
        _require(_is_count(value.get("_growth_tracker")), "has no '_growth_tracker', a number of steps")


def _check_ema(value: Any) -> None:
    _of(Mapping, optional=True)(value)
    if value is not None:
        _require(isinstance(value.get("model"), Mapping), "has no 'model'")
        check_tensors(value["model"])
        check_finite(value["model"])
        _require(_is_count(value.get("updates")), "has no 'updates', a number of steps")


def _check_rng(value: Any) -> None:
    """Each rank's generators, tried on generators that nobody uses."""
    _of(list, tuple, optional=True)(value)
    for rank, state in enumerate(value or ()):
        try:
            _try_generators(state)
        except Exception as error:  # what they raise for a foreign state: type, value, key, overflow, ...
            raise EntryError(f"is no state of random numbers for rank {rank}") from error


def _try_generators(state: Mapping[str, Any]) -> None:
    version, numbers, gauss_next = state["python"]
    random.Random().setstate((version, tuple(numbers), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    # NumPy itself would read beyond its numbers.
    _require(keys.shape == (_MERSENNE_WORDS,) and 0 <= position <= _MERSENNE_WORDS, "")
    words = keys.numpy().astype(np.uint32)
    np.random.RandomState().set_state((kind, words, position, has_gauss, gauss))
    torch.Generator().set_state(state["torch"])
    gpu = state["cuda"]
    # A GPU's generator is a seed and an offset.
    _require(gpu is None or (gpu.dtype == torch.uint8 and gpu.shape in ((8,), (16,))), "")


def _check_class_lists(entries: Mapping[str, Any]) -> None:
    lists = {name: entries.get(name) or () for name in ("class_names", "image_counts", "frequencies")}
    count = len(lists["class_names"])
    for name, values in lists.items():
        if values and len(values) != count:
            raise EntryError(f"its {name!r} has {len(values)} entries for {count} classes")


def _check_training_state(entries: Mapping[str, Any]) -> None:
    """What only agrees as a whole: the optimizer's and the average's tensors are the model's."""
    model = entries.get("model", {})
    for name, state in entries["optimizer"].items():
        if name not in model:
            raise EntryError(f"its 'optimizer' has {name!r}, which is no tensor of the model")
        for key in _MOMENTS:
            shape = () if key == "step" else tuple(model[name].shape)
            found = tuple(getattr(state[key], "shape", ()))
            if found != shape:
                raise EntryError(f"its 'optimizer' has {key!r} of {name!r} of shape {found} for {shape}")
        if float(state["step"]) < 0:
            raise EntryError(f"its 'optimizer' counts {float(state['step']):g} steps for {name!r}")
    average = (entries.get("ema") or {}).get("model")
    if average is not None:
        _check_same_tensors(model, average)
    _check_position(entries)


def _check_same_tensors(model: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> None:
    for name in [*model, *average]:
        if name not in model or name not in average:
            there, absent = ("model", "ema") if name in model else ("ema", "model")
            raise EntryError(f"its {absent!r} lacks {name!r}, which its {there!r} has")
        if model[name].shape != average[name].shape:
            raise EntryError(f"its 'ema' has {name!r} in another shape than its 'model'")


def _check_position(entries: Mapping[str, Any]) -> None:
    """The schedule stands where epoch `epoch` ends; in the next where `iteration` says that it has begun.

    A run of `max_steps` ends within its last epoch.
    """
    scheduler, epoch = entries.get("scheduler"), entries.get("epoch")
    if scheduler is None or epoch is None:
        return
    position, steps = scheduler["position"], scheduler["steps_per_epoch"]
    end = epoch + bool(entries.get("iteration"))
    ends_early = position > 0 and (entries.get("config") or {}).get("max_steps") == position
    start = (epoch - 1) * steps + 1 if ends_early else epoch * steps
    if not start <= position <= end * steps:
        raise EntryError(
            f"its 'scheduler' stands at step {position} with {steps} steps an epoch, its 'epoch' is {epoch}"
        )


_CHECKS: dict[str, Callable[[Any], None]] = {
    "model": _check_model,
    "class_names": _check_list(lambda item: isinstance(item, str), "name"),
    "image_counts": _check_list(_is_count, "number of images"),
    "frequencies": _check_list(lambda item: item in _GROUPS, "group (r, c or f)"),
    "config": _plain(Mapping),
    "run": _check_run,
    "note": _plain(str),
    "epoch": _check_count,
    "iteration": _check_count,
    "evaluated": _of(bool),
    "progress": _check_progress,
    "best_ap": _check_best_ap,
    "early_stopping": _check_early_stopping,
    "optimizer": _check_optimizer,
    "scheduler": _check_scheduler,
    "scaler": _check_scaler,
    "ema": _check_ema,
    "rng": _check_rng,
}
