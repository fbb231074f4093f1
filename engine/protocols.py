"""What the engine expects of the parts it is handed.

A model's output and a teacher's semantic targets are opaque here: they go from one part to the next.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from util.structures import Batch, Detections, Losses, PaddedImages, Targets


class Criterion(Protocol):
    def __call__(self, output: Any, targets: Targets, semantic: Any) -> Losses: ...


class Teacher(Protocol):
    """Frozen; called under no_grad in training only."""

    def __call__(self, images: PaddedImages, targets: Targets) -> Any: ...


class Postprocess(Protocol):
    """sizes: (height, width) of each image's file, in pixels."""

    def __call__(self, output: Any, sizes: Sequence[tuple[int, int]]) -> list[Detections]: ...


class Loader(Protocol):
    """The same length on every rank in training. An epoch is repeatable by number."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...

    def set_epoch(self, epoch: int, offset: int = 0) -> None:
        """Reshuffles; the next iteration is that of `epoch` without its first `offset` batches."""

    def damaged(self) -> list[str]:
        """Images met so far, on this rank, that are damaged."""

    def missing(self) -> list[str]:
        """Images that are missing, as far as this rank knows."""


class Evaluator(Protocol):
    """Collects detections of each rank's own images; `finish` is called on every rank.

    `finish` returns the metrics in 0..1 (-1 where undefined) on rank 0 and None elsewhere.
    """

    def update(self, image_ids: Sequence[int], detections: list[Detections]) -> None: ...

    def finish(self) -> dict[str, float] | None: ...
