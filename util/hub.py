"""Files of the Hugging Face Hub: `hf://` paths, and what to do without a network. Needs no torch."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from util.errors import UserError, first_line, nearest
from util.optional import require

WEIGHTS = "model.safetensors"
CONTENT = "config.json"
MODEL_SUFFIXES = (".safetensors", ".pth", ".onnx", ".pt2")

FORM = "hf://OWNER/NAME[/FILE][@REVISION]"
# A path object has one slash after the colon. The Hub's own URIs have the revision after the name.
_ADDRESS = re.compile(
    r"hf:/{1,2}(?P<repo>[^/@]+/[^/@]+)(?:@(?P<early>[^/@]+))?(?:/(?P<file>[^@]+))?(?:@(?P<late>.+))?"
)
# Characters of an address.
_LONGEST = 500
# Seconds until a host that does not answer counts as not reachable.
_PATIENCE = 5.0


def is_address(path: str | Path) -> bool:
    """Whether a path names a file of the Hub rather than one of this machine."""
    return _text(path).startswith("hf:/")


def file_of(path: str | Path) -> str:
    """The name of the file that a path or an address leads to, without a revision.

    Raises UserError as `resolve` does for another form of address.
    """
    if not is_address(path):
        return Path(path).name
    return Path(_parts(path)[1]).name


def resolve(path: str | Path) -> Path:
    """The local file of a path: the path itself, or the download of an address `hf://...`.

    The form is `hf://OWNER/NAME[/FILE][@REVISION]`; FILE is `model.safetensors` unless it is given, REVISION
    a branch, tag or commit. Files are kept in the Hub's cache, which is all that is used without a network.
    Raises UserError: for another form, a repository, revision or file that is not there, one that may not be
    read, and a file that can neither be downloaded nor found in the cache.
    """
    if not is_address(path):
        return Path(path)
    repo, file, revision = _parts(path)
    with asking(repo, file, revision) as hub:
        local = Path(hub.hf_hub_download(repo, file, revision=revision))
        if file.endswith(".safetensors"):
            _fetch_if_there(hub, repo, Path(file).with_name(CONTENT).as_posix(), revision)
    return local


def _parts(address: str | Path) -> tuple[str, str, str | None]:
    """Repository, file and revision. Raises UserError for another form."""
    text = _text(address).rstrip("/")
    if not text.isprintable() or len(text) > _LONGEST:
        raise UserError(f"{text[:60]!r}: is no address; the form of one is {FORM}")
    match = _ADDRESS.fullmatch(text)
    if match is None or (match["early"] and match["late"]):
        raise UserError(f"{_text(address)}: the form of an address is {FORM}")
    return match["repo"], match["file"] or WEIGHTS, match["early"] or match["late"]


def _huggingface_hub() -> Any:
    """The library, with the two modules that it does not import by itself."""
    for module in ("errors", "constants"):
        require(f"huggingface_hub.{module}", "hub")
    return require("huggingface_hub", "hub")


def _text(path: str | Path) -> str:
    return path.as_posix() if isinstance(path, Path) else path


def _fetch_if_there(hub: Any, repo: str, file: str, revision: str | None) -> None:
    """A description beside the weights, which those that hold their own do not need."""
    try:
        hub.hf_hub_download(repo, file, revision=revision)
    except hub.errors.EntryNotFoundError:
        return


@contextmanager
def asking(repo: str, file: str = "", revision: str | None = None) -> Iterator[Any]:
    """Gives huggingface_hub for calls about one repository, and says in one line what they failed at.

    Raises UserError for whatever the Hub refuses, and for failures of the network and the disk.
    """
    hub = _huggingface_hub()
    failures = (hub.errors.HTTPError, hub.errors.EntryNotFoundError, OSError, ValueError, RuntimeError)
    try:
        with offline_if_unreachable():
            yield hub
    except failures as error:
        raise UserError(f"hf://{repo}: {_reason(hub, error, repo, file, revision)}") from error


def _reason(hub: Any, error: Exception, repo: str, file: str, revision: str | None) -> str:
    errors = hub.errors
    token = "" if hub.get_token() else " (you are not logged in: run `hf auth login`, or set HF_TOKEN)"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"access is restricted: ask for it at {hub.constants.ENDPOINT}/{repo}{token}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such model, or it is private{token}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision!r}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"{file} is not in the cache, and {_why_unreachable(hub, error.__cause__)}"
    if isinstance(error, errors.EntryNotFoundError):
        return f"has no file {file!r}.{_files(hub, repo, file, revision)}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return _why_unreachable(hub, error)
    if status in (401, 403):
        said = getattr(error, "server_message", None) or first_line(error)
        return f"the Hub refused access ({said}){token}"
    return _one_line(error)


def _one_line(error: Exception) -> str:
    """The whole message: the first of its lines only says that something is wrong."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _why_unreachable(hub: Any, cause: BaseException | None) -> str:
    if os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE"):
        return "HF_HUB_OFFLINE forbids the network"
    unreachable = f"{hub.constants.ENDPOINT} cannot be reached"
    if cause is None or isinstance(cause, hub.errors.OfflineModeIsEnabled):
        return unreachable
    return f"{unreachable} ({first_line(cause)})"


def _files(hub: Any, repo: str, file: str, revision: str | None) -> str:
    """` It has ...`, the models of the repository; '' where they cannot be listed."""
    try:
        found = hub.HfApi().list_repo_files(repo, revision=revision)
    except (hub.errors.HTTPError, OSError, ValueError):
        # The error that is being reported is the one that matters.
        return ""
    weights = [name for name in found if name.endswith(MODEL_SUFFIXES)]
    return f" It has {', '.join(weights[:5])}; the form is {FORM}" if weights else nearest(file, found)


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """While the Hub's host cannot be reached, huggingface_hub uses its cache alone, at once.

    Without it every file of open_clip, timm or ours is asked for six times, with a warning each, before the
    error. A host that answers keeps all retries.
    """
    hub = _huggingface_hub()
    constants = hub.constants
    if constants.HF_HUB_OFFLINE or _reachable(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def _reachable(endpoint: str) -> bool:
    """Whether the host accepts a connection; True where a proxy does the connecting.

    A second try, a second later, forgives a name server that missed the first question.
    """
    address = urlsplit(endpoint)
    if address.scheme in getproxies() or address.hostname is None:
        return True
    port = address.port or (80 if address.scheme == "http" else 443)
    for attempt in range(2):
        if attempt:
            time.sleep(1.0)
        try:
            socket.create_connection((address.hostname, port), timeout=_PATIENCE).close()
            return True
        except OSError:
            continue
    return False
