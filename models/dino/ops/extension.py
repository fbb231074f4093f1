"""Finds, builds and loads the compiled kernels, once per process and kind of device.

Order: the package that `setup.py` installed, if it fits; the cache of earlier builds; a build into that
cache. Ranks that start together wait for the one that builds. `RICHSEM_OPS` decides what a failure means:
unset or `auto` falls back to the reference with one warning, `required` stops, `reference` never looks for
kernels.
"""

import functools
import importlib.util
import json
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock

from util import files

from . import compiler, library

MODES = ("auto", "required", "reference")

_log = logging.getLogger("richsem.ops")


@dataclass(frozen=True)
class Status:
    """What runs the op on one kind of device.

    compiled: whether it is the compiled kernels; else it is the reference.
    reason: one line that says where they come from, or why there are none.
    """

    compiled: bool
    reason: str


class OpsError(RuntimeError):
    """The compiled kernels are required but not available."""


def mode() -> str:
    """`$RICHSEM_OPS`, checked. Raises `OpsError` on another word."""
    word = os.environ.get("RICHSEM_OPS") or "auto"
    if word not in MODES:
        raise OpsError(f"RICHSEM_OPS={word} is not one of {', '.join(MODES)}")
    return word


def cache_directory() -> Path:
    """`$RICHSEM_OPS_CACHE`, else ops/ in the project's cache folder."""
    if os.environ.get("RICHSEM_OPS_CACHE"):
        return Path(os.environ["RICHSEM_OPS_CACHE"])
    return files.cache_directory("ops")


@functools.cache
def status(kind: str) -> Status:
    """Loads the kernels for `kind` ("cpu", "cuda", ...) on the first call and says what is in use.

    Raises:
        OpsError: `RICHSEM_OPS=required` and there are no kernels, or RICHSEM_OPS holds another word.
    """
    if mode() == "reference":
        return Status(False, "RICHSEM_OPS=reference")
    if kind not in compiler.LIBRARY_NAMES:
        return Status(False, f"there are no kernels for {kind}")
    try:
        origin = _load(kind)
    except (compiler.BuildError, OSError, RuntimeError) as error:
        cause = f": {error.__cause__}" if isinstance(error.__cause__, OSError) else ""
        message = " ".join(f"{error}{cause}".split())[:400]
        if mode() == "required":
            raise OpsError(f"RICHSEM_OPS=required but there are no {kind} kernels: {message}") from error
        _log.warning("ms_deform_attn runs its slow reference on %s: %s", kind, message)
        return Status(False, message)
    _log.info("ms_deform_attn runs compiled %s kernels, %s", kind, origin)
    return Status(True, origin)


@torch.compiler.assume_constant_result
def compiled(kind: str) -> bool:
    """Whether the op has compiled kernels for `kind`; loads them on the first call."""
    return status(kind).compiled


def _load(kind: str) -> str:
    """Loads the kernels, built where they have to be, and says where they come from."""
    installed = _installed(kind)
    if installed is not None:
        _load_library(kind, installed)
        return f"installed in {installed.parent}"
    key = compiler.build_key(kind)
    if kind == "cpu":
        key["sets"] = compiler.local_instruction_set()
    else:
        key["architectures"] = " ".join(compiler.architectures())
    directory = cache_directory() / "-".join(
        key[name].replace(" ", "_").replace("+", "_") for name in sorted(key)
    )
    path = directory / compiler.LIBRARY_NAMES[kind]
    unfit = None
    if compiler.is_whole(path):
        found = _identity(path)
        try:
            _load_library(kind, path)
            return f"from {directory}"
        except (OSError, RuntimeError) as error:
            _log.warning("%s does not load (%s): it is built again", path, error)
            unfit = found
    elif path.exists():
        _log.warning("%s is damaged: it is built again", path)
    origin = _build_once(kind, path, unfit)
    _load_library(kind, path)
    return origin


def _load_library(kind: str, path: Path) -> None:
    torch.ops.load_library(path)
    library.check_kernels(kind)


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from the one that replaces it."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _installed(kind: str) -> Path | None:
    """The library that `setup.py` installed, when it was built from these sources for this PyTorch."""
    spec = importlib.util.find_spec(compiler.PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    directory = Path(next(iter(spec.submodule_search_locations)))
    path = directory / compiler.LIBRARY_NAMES[kind]
    if not path.is_file():
        return None
    try:
        found = dict(json.loads((directory / "build.json").read_text())[kind])
    except (OSError, ValueError, KeyError, TypeError):
        found = {}
    architectures = str(found.pop("architectures", "")).split()
    if found != compiler.build_key(kind):
        _log.info(
            "%s in %s was built for other sources or another PyTorch: not used", compiler.PACKAGE, directory
        )
        return None
    gpus = [
        torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count() if architectures else 0)
    ]
    missing = [gpu for gpu in gpus if not compiler.runs_on(architectures, gpu)]
    if missing:
        _log.info("%s in %s holds no code for GPUs %s: not used", compiler.PACKAGE, directory, missing)
        return None
    if not compiler.is_whole(path):
        _log.warning("%s is damaged: not used; install it again", path)
        return None
    return path


def _build_once(kind: str, path: Path, unfit: tuple[int, int] | None) -> str:
    """Builds under a lock. Ranks that waited for a failing build take its failure for theirs.

    unfit: the identity of a library that is whole but does not load.
    """
    directory = path.parent
    directory.mkdir(parents=True, exist_ok=True)
    failure = directory / f"{kind}.failed"
    asked = time.time()
    with FileLock(directory / f"{kind}.lock"):
        if compiler.is_whole(path) and _identity(path) != unfit:
            return f"from {directory}"
        if failure.is_file() and failure.stat().st_mtime > asked:
            raise compiler.BuildError(failure.read_text().splitlines()[0])
        # Nobody else builds here while we hold the lock: these are of builds that were killed.
        for scratch in directory.glob(f"{compiler.SCRATCH}*"):
            shutil.rmtree(scratch, ignore_errors=True)
        _log.info("compiling the %s kernels of ms_deform_attn into %s", kind, directory)
        try:
            compiler.build(kind, directory)
        except compiler.BuildError as error:
            failure.write_text(f"{error}\n\n{error.log}")
            if error.log:
                raise compiler.BuildError(f"{error} (all of it in {failure})") from error
            raise
    failure.unlink(missing_ok=True)
    return f"built in {time.time() - asked:.0f} s into {directory}"
