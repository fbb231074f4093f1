"""How many optimizer steps are so many training images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from config import Config
from datasets.build import build_datasets
from datasets.evaluation.dataset_record import training_fingerprint
from datasets.loader import Loader
from datasets.run_data import RunSettings
from util.errors import UserError


@dataclass(frozen=True)
class Budget:
    """One run's share of the grid.

    steps:     optimizer steps.
    images_at: images seen at the end of each epoch, of both streams; the last is the budget.
    image_level: image-level images among them.
    fingerprint: of the validation annotations.  trained_on: of those that it trains on.
    """

    steps: int
    images_at: tuple[int, ...]
    image_level: int
    fingerprint: str
    trained_on: str


def find_budget(config: Config, settings: RunSettings, images: int) -> Budget:
    """The budget of a run on one process.

    Counts the batches that the run's own sampler gives. Raises UserError where no step ends at that number,
    and as `build_datasets` does.
    """
    data = build_datasets(config, settings)
    assert data.train_loader is not None
    seen, steps, image_level, ends = 0, 0, 0, []
    for size, from_level, closes in _steps(data.train_loader, config.accumulate_steps):
        if seen + size > images:
            raise UserError(
                f"{images} images end within a step: {steps} steps are {seen}, {steps + 1} are {seen + size}"
            )
        seen, steps, image_level = seen + size, steps + 1, image_level + from_level
        if closes or seen == images:
            ends.append(seen)
        if seen == images:
            break
    return Budget(
        steps, tuple(ends), image_level, data.record.fingerprint, training_fingerprint(data.train_tables)
    )


def _steps(loader: Loader, accumulate: int) -> Iterator[tuple[int, int, bool]]:
    """Each step's images, those from the image-level stream, and whether the epoch ends with it."""
    for epoch in count():
        loader.set_epoch(epoch)
        sizes, level = 0, 0
        for number, batch in enumerate(loader.batch_sampler, start=1):
            sizes += len(batch)
            level += sum(index.stream > 0 for index in batch)
            closes = number == len(loader)
            if closes or number % accumulate == 0:
                yield sizes, level, closes
                sizes, level = 0, 0
