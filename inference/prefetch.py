"""The next items while the network works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

T = TypeVar("T")
_END: Any = object()


def prefetched(items: Iterable[T], ahead: int) -> Iterator[T]:
    """The same items in the same order, up to `ahead` of them made in a thread before they are asked for.

    An error comes where its item would have come.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, iterator, _END) for _ in range(ahead))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, iterator, _END))
            yield cast(T, item)
