"""A progress bar with remaining time, on a terminal and on rank 0 only."""

import sys

from tqdm import tqdm

from util import distributed


class Progress:
    """`with Progress(...) as progress: progress.advance()`."""

    def __init__(self, title: str, total: int) -> None:
        hidden = not (distributed.is_main() and sys.stderr.isatty())
        self._bar = tqdm(total=total, desc=title, disable=hidden, leave=False, dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def advance(self) -> None:
        self._bar.update()
