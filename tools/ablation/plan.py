"""The runs of a grid: where each one lies, with which config, and whether it may go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from config import Config, dump, load
from config.values import shown
from datasets.run_data import RunSettings
from engine.run_directory import RunDirectory, make_folder
from tools.ablation.budget import Budget, find_budget
from tools.ablation.grid import Grid, slug
from tools.ablation.results import Result
from util.errors import UserError, listed
from util.files import atomic_write

# Of a changed run, how many keys an error names.
_MOST_NAMED = 5


@dataclass(frozen=True, eq=False)
class Run:
    """fold: 0 where the data has one validation split.
    config: with the budget.  config_file: the same, on the disk.
    data: the folder.  output: of the whole grid."""

    row: str
    seed: int
    fold: int
    config: Config
    budget: Budget
    data: Path
    output: Path

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.row}, seed {self.seed}" + (f", fold {self.fold}" if self.fold else "")

    @property
    def folder(self) -> RunDirectory:
        """Of the training run."""
        path = self.output / "runs" / slug(self.row) / str(self.seed)
        return RunDirectory(path / f"fold-{self.fold}" if self.fold else path)

    @property
    def config_file(self) -> Path:
        fold = f"-{self.fold}" if self.fold else ""
        return self.output / "configs" / f"{slug(self.row)}{fold}.py"

    @property
    def result_file(self) -> Path:
        """What is kept of a finished run."""
        fold = f"-{self.fold}" if self.fold else ""
        return self.output / "results" / f"{slug(self.row)}-{self.seed}{fold}.json"

    @property
    def identity(self) -> dict[str, Any]:
        """The fields of its `Result` that are known before it has run."""
        return {
            "row": self.row,
            "seed": self.seed,
            "fold": self.fold,
            "config": self.config.to_dict(),
            "fingerprint": self.budget.fingerprint,
            "trained_on": self.budget.trained_on,
            "steps": self.budget.steps,
            "images_at": self.budget.images_at,
            "image_level": self.budget.image_level,
        }

    @property
    def data_file(self) -> Path:
        """In the run's folder: fingerprints of the data that it was started on."""
        return self.folder.path / "data.json"

    def result(self) -> Result | None:
        """Of the finished run; None before. Raises UserError for a damaged file, or one of another run."""
        result = Result.read(self.result_file)
        if result is not None and (slug(result.row), result.seed, result.fold) != (
            slug(self.row),
            self.seed,
            self.fold,
        ):
            raise UserError(f"{self.result_file}: is of {result.row!r}, seed {result.seed}; remove it")
        return result

    def changes(self) -> list[str]:
        """What is no longer as the run in the folder, or its result, has it; empty where none is there."""
        result = self.result()
        if result is not None:
            changed = _differences(result.config, self.config)
            budget = Budget(
                result.steps,
                result.images_at,
                result.image_level,
                result.fingerprint,
                result.trained_on or self.budget.trained_on,  # older files do not say
            )
            return changed if changed or budget == self.budget else ["the data"]
        if not self.folder.config.is_file():
            return []
        try:
            changed = _differences(load(self.folder.config).to_dict(), self.config)
        except UserError as error:
            return [str(error)]
        same_data = not self.data_file.is_file() or self.data_file.read_text("utf-8") == self._data
        return changed if changed or same_data else ["the data"]

    @property
    def _data(self) -> str:
        """The content of `data_file`."""
        return json.dumps([self.budget.fingerprint, self.budget.trained_on])

    def prepare(self) -> None:
        """Makes the folder, and writes `config_file` and `data_file`. Raises UserError where it cannot."""
        make_folder(self.folder.path)
        with atomic_write(self.config_file, durable=False) as file:
            file.write(dump(self.config))
        with atomic_write(self.data_file, durable=False) as file:
            file.write(self._data)

    def forget(self) -> None:
        """Removes the run and its result."""
        shutil.rmtree(self.folder.path, ignore_errors=True)
        self.result_file.unlink(missing_ok=True)


def plan_runs(grid: Grid, output: Path, data: Mapping[int, Path], *, allow_outside: bool) -> list[Run]:
    """Every run, seed by seed, so that a table of all rows is there early.

    data: the folder of each fold.
    Raises UserError for a config or data that a row cannot have, and where a row cannot see so many images.
    """
    prepared: dict[tuple[str, int], tuple[Config, Budget]] = {}
    for row in grid.rows:
        config = replace(grid.config_of(row), early_stop_patience=0, early_stop_min_delta=0.0, dry_run=False)
        for fold, folder in data.items():
            settings = RunSettings(str(folder), seed=grid.seeds[0], allow_outside=allow_outside)
            try:
                prepared[row, fold] = _with_budget(config, settings, grid.images)
            except UserError as error:
                raise UserError(f"row {row!r}: {error}") from None
    return [
        Run(row, seed, fold, *prepared[row, fold], folder, output)
        for seed in grid.seeds
        for fold, folder in data.items()
        for row in grid.rows
    ]


def _with_budget(config: Config, settings: RunSettings, images: int) -> tuple[Config, Budget]:
    """The config with the budget's steps and epochs, an image-level start below 1 being a share of these.

    How long an epoch is depends on the start, and the start on how many there are. So it is moved later until
    it is that share; a later start has no fewer epochs. Raises UserError as `find_budget` does, and for an
    image-level stream that never comes.
    """
    tried = replace(config, image_level_start=0) if config.image_level_start < 1 else config
    while True:
        budget = find_budget(tried, settings, images)
        epochs = len(budget.images_at)
        start = replace(config, epochs=epochs).image_level_epochs[0]
        if start <= tried.image_level_start:
            if config.use_imagenet and not budget.image_level:
                raise UserError(
                    f"with main_weight={config.main_weight} no image-level image comes within the budget: "
                    "lower it, or set use_imagenet=False"
                )
            return replace(tried, max_steps=budget.steps, epochs=epochs), budget
        tried = replace(config, image_level_start=start, epochs=epochs)


def check_unchanged(runs: Sequence[Run], *, again: bool) -> None:
    """Refuses runs that were made with another config or other data; with `again` they are removed.

    Raises UserError that names the first, and how many there are.
    """
    changed = [(run, found) for run in runs if (found := run.changes())]
    if again:
        for run, _ in changed:
            run.forget()
        return
    if changed:
        run, found = changed[0]
        what = listed(found, _MOST_NAMED).rstrip(".")
        others = f" ({len(changed)} such runs)" if len(changed) > 1 else ""
        raise UserError(
            f"{run.name}: changed since it was made: {what}{others}. Name another --output; --rerun removes "
            "what has changed and makes it again"
        )


def _differences(before: Mapping[str, Any], config: Config) -> list[str]:
    """Keys that are not as before, in words. A key that an earlier revision did not have had its default."""
    try:
        old = Config.from_dict(before).to_dict()
    except UserError as error:
        return [str(error)]
    new = config.to_dict()
    return [f"{key} {shown(old[key])} -> {shown(new[key])}" for key in new if old[key] != new[key]]
