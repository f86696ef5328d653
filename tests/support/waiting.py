"""Wait for what another process does, for as long as it may take on a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

LIMIT_S = 60.0
T = TypeVar("T")


def until(done: Callable[[], T], limit_s: float = LIMIT_S) -> T:
    """What a condition returns once it holds.

    Raises:
        AssertionError: It does not hold in time.
    """
    limit = time.monotonic() + limit_s
    while not (value := done()):
        assert time.monotonic() < limit, f"not within {limit_s:g} s"
        time.sleep(0.05)
    return value
