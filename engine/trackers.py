"""Experiment trackers: TensorBoard, Weights & Biases, MLflow and trackio behind one interface.

Rank 0 only. Each keeps its files in the run's folder, reaches no network and asks nothing, unless the
library's own environment variables say otherwise. A tracker that fails is switched off; training goes on.
"""

import contextlib
import io
import json
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlparse

from engine.random_state import load_random_state, random_state
from util.errors import first_line
from util.optional import require

_log = logging.getLogger(__name__)

PROJECT = "richsem"
# In the run's folder: the name under which a resumed run continues in its trackers.
RUN_ID = "tracker_id.txt"


@runtime_checkable
class Tracker(Protocol):
    """One run in one tracker."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """numbers: finite, by name, `epoch` among them.  step: optimizer steps so far."""

    def finish(self, failed: bool) -> None:
        """The end of training; failed: by an error or by the user."""


class TensorBoard:
    """Event files in `tensorboard/`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))
        self.writer.add_text("config", f"```\n{json.dumps(dict(settings), indent=1)}\n```")

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def finish(self, failed: bool) -> None:
        self.writer.close()


class WeightsAndBiases:
    """Files in `wandb/` for `wandb sync`. WANDB_MODE=online sends them, if a login is stored."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        wandb = require("wandb", "trackers")
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "online" and not _has_wandb_login():
            _log.warning("tracker wandb: WANDB_MODE=online without a login (wandb login): working offline")
            mode = "offline"
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", folder.name),
            id=_run_id(folder),
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(folder)),
            config=dict(settings),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off", init_timeout=30),
        )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self.run.log(dict(numbers), step=step)

    def finish(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


class MLflow:
    """A database `mlflow.db`, or the server of MLFLOW_TRACKING_URI."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        mlflow = require("mlflow", "trackers")
        self.entities = require("mlflow.entities", "trackers")
        for library in ("mlflow", "alembic"):
            logging.getLogger(library).setLevel(logging.WARNING)
        own = f"sqlite:///{(folder / 'mlflow.db').resolve()}"
        place = os.environ.get("MLFLOW_TRACKING_URI", own)
        self.client = mlflow.MlflowClient(tracking_uri=place)
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self.client.get_experiment_by_name(experiment)
        files = (folder / "mlflow").resolve().as_uri() if place == own else None
        number = found.experiment_id if found else self.client.create_experiment(experiment, files)
        self.run = self._open_run(number, folder)
        self._log_settings(settings)

    def _open_run(self, experiment: str, folder: Path) -> str:
        tags = {"richsem.id": _run_id(folder)}
        found = self.client.search_runs([experiment], f"tags.`richsem.id` = '{tags['richsem.id']}'")
        if found:
            self.client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id
        return self.client.create_run(experiment, tags=tags, run_name=folder.name).info.run_id

    def _log_settings(self, settings: Mapping[str, Any]) -> None:
        known = self.client.get_run(self.run).data.params
        # MLflow refuses another value for a parameter: those of the first start stay.
        new = [self.entities.Param(k, str(v)[:500]) for k, v in settings.items() if k not in known]
        for start in range(0, len(new), 100):  # the most that a server takes at once
            self.client.log_batch(self.run, params=new[start : start + 100])

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        now = round(1000 * time.time())
        named = {re.sub(r"[^\w\-./ ]", "_", name): value for name, value in numbers.items()}  # AR@300
        self.client.log_batch(self.run, [self.entities.Metric(k, v, now, step) for k, v in named.items()])

    def finish(self, failed: bool) -> None:
        self.client.set_terminated(self.run, "FAILED" if failed else "FINISHED")


class Trackio:
    """A database in `trackio/`, or in the folder of TRACKIO_DIR."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        trackio = require("trackio", "trackers")
        with contextlib.redirect_stdout(io.StringIO()):
            self.run = trackio.init(
                project=PROJECT,
                name=f"{folder.name}-{_run_id(folder)}",
                config=dict(settings),
                resume="allow",
                embed=False,
            )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self.run.log(dict(numbers), step=step)

    def finish(self, failed: bool) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.run.finish()


_KINDS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
    "trackio": Trackio,
}


# Defaults of variables that a library reads when it is imported.
_ENVIRONMENT = {
    # A server that does not answer must not hold up training.
    "mlflow": {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    },
    "trackio": {"TRACKIO_DIR": "{folder}/trackio"},
}


class Trackers:
    """All trackers of a run. Whatever one of them raises is logged in one line, and that tracker ends."""

    def __init__(self, opened: Mapping[str, Tracker]) -> None:
        self.opened = dict(opened)

    def log(self, group: str, numbers: Mapping[str, float], step: int, epoch: int) -> None:
        """numbers: by name; those that are not finite are left out.  epoch: from 1."""
        finite = {f"{group}/{name}": value for name, value in numbers.items() if math.isfinite(value)}
        if finite:
            self._each(lambda tracker: tracker.log({**finite, "epoch": epoch}, step))

    def finish(self, failed: bool = False) -> None:
        """Closes every tracker."""
        self._each(lambda tracker: tracker.finish(failed))
        self.opened.clear()

    def _each(self, action: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.opened.items()):
            try:
                action(tracker)
            except Exception as error:  # of any library, network or disk
                del self.opened[name]
                _warn(name, error)


def import_trackers(names: Sequence[str], folder: Path) -> None:
    """Imports what the trackers of a run in `folder` need.

    Raises UserError with the pip line for the first package that is missing, or that does not import.
    """
    for name in names:
        if name in _KINDS:
            for variable, value in _ENVIRONMENT.get(name, {}).items():
                os.environ.setdefault(variable, value.format(folder=folder.resolve()))
            require(name, "trackers")


def open_trackers(names: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> Trackers:
    """Opens the trackers, each for a new run or for the run that it has of this folder.

    names: of the config key `tracker`; empty for TensorBoard where it is installed.
    folder: of the run.  settings: what the tracker shows as the run's parameters.
    """
    opened: dict[str, Tracker] = {}
    # Libraries draw names from the global generators; training must not see that.
    before = random_state()
    for name in names or _installed_tensorboard():
        if name in _KINDS:
            try:
                import_trackers([name], folder)
                opened[name] = _KINDS[name](folder, settings)
            except Exception as error:  # of any library, network or disk
                _warn(name, error)
    load_random_state(before)
    return Trackers(opened)


def _installed_tensorboard() -> Sequence[str]:
    return ("tensorboard",) if find_spec("tensorboard") else ()


def _warn(name: str, error: Exception) -> None:
    _log.warning("tracker %s failed and is switched off; training goes on: %s", name, first_line(error))


def _run_id(folder: Path) -> str:
    """12 characters that stay with the folder."""
    path = folder / RUN_ID
    if not path.is_file():
        path.write_text(uuid.uuid4().hex[:12] + "\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def _has_wandb_login() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    except (OSError, NetrcParseError):
        return False
