"""Where the time of a trial goes."""

from __future__ import annotations

import time


class Stopwatch:
    """Adds up seconds by name.

    Args:
        started: When the first lap began, in seconds since 1970; now if omitted. Laps of several
            processes on one machine can be told so.
    """

    def __init__(self, started: float | None = None) -> None:
        self._last = time.time() if started is None else started
        self.seconds: dict[str, float] = {}
        """Seconds of each name."""

    def lap(self, name: str) -> None:
        """Count the time since the last lap, or since the start, to a name."""
        now = time.time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now
