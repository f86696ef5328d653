"""Make the next batches while the device computes on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """Yield the items, made ahead by a thread: their order stays.

    Args:
        items: What to make ahead; used by that thread alone. What it raises is raised here, when
            its turn comes.
        depth: Items made ahead at most; 0: none, and no thread.
    """
    if depth == 0:
        yield from items
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        end = object()
        pending = deque(thread.submit(next, items, end) for _ in range(depth))
        while (item := pending.popleft().result()) is not end:
            pending.append(thread.submit(next, items, end))
            yield item  # type: ignore[misc]
