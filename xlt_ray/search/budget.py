"""When a search starts no more trials, and what the rest of it will take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from statistics import fmean

from xlt_ray.config.base import seconds_of
from xlt_ray.config.spec import SearchSettings
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.ledger import Ledger, Record
from xlt_ray.search.trials import TrialStatus


def budget_reached(settings: SearchSettings, ledger: Ledger) -> str | None:
    """Return why a search starts no more trials; None: it goes on, as before its first trial.

    Args:
        settings: The search's settings, with `time_budget` and `target`.
        ledger: Its ledger, which knows the time of earlier runs too.
    """
    if not ledger.records:
        # However short the budget, a search without any trial would have no result.
        return None
    if settings.time_budget is not None and ledger.elapsed >= seconds_of(settings.time_budget):
        return f"the time budget of {settings.time_budget} is used up"
    if settings.target is None:
        return None
    for label, record in ledger.records.items():
        if record.status != TrialStatus.FINISHED:
            continue
        objective = float(record.metrics[OBJECTIVE])
        if objective >= settings.target:
            return f"trial {label} has {objective:.4f}, the target is {settings.target:g}"
    return None


class Outlook:
    """The time and the money that a stage's trials still take, from those that ended.

    Args:
        trials: Trials of the stage.
        concurrent: Trials that run at the same time.
        before: Records from before an interruption.
        price_per_hour: Price of an hour of one trial; None: unknown.
        elastic: Whether the price is that of a trial with all the workers that it can have.
        seconds_left: Returns the time after which no trial starts; None: there is no limit.
        clock: Returns seconds from any origin.
    """

    def __init__(
        self,
        trials: int,
        concurrent: int,
        before: Mapping[str, Record],
        *,
        price_per_hour: float | None = None,
        elastic: bool = False,
        seconds_left: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._left = trials - sum(record.ended for record in before.values())
        self._concurrent = concurrent
        self._price = price_per_hour
        self._at_most = "at most " if elastic else ""
        self._seconds_left = seconds_left
        self._clock = clock
        self._earlier = {label: record.seconds for label, record in before.items()}
        self._lasted = [r.seconds for r in before.values() if r.ended and r.seconds]
        self._began: dict[str, float] = {}
        self._used = sum(self._earlier.values())

    def start(self, label: str) -> None:
        """Note that a trial starts or resumes."""
        self._began[label] = self._clock()

    def end(self, label: str, failed: bool = False) -> None:
        """Note that a trial ended. How long a failed trial took does not enter the estimates."""
        self._left -= 1
        now = self._clock()
        seconds = now - self._began.pop(label, now)
        self._used += seconds
        if not failed:
            self._lasted.append(seconds + self._earlier.get(label, 0.0))

    def text(self) -> str:
        """Return the estimates in words; empty before a trial ended, or without any left."""
        if not self._lasted:
            return ""
        now = self._clock()
        running = {label: now - began for label, began in self._began.items()}
        one = fmean(self._lasted)
        rest = [max(0.0, one - t - self._earlier.get(name, 0.0)) for name, t in running.items()]
        work = sum(rest) + one * max(0, self._left - len(running))
        side_by_side = max(1, min(self._concurrent, self._left))
        seconds = work / side_by_side
        limit = math.inf if self._seconds_left is None else self._seconds_left()
        if limit <= 0:
            work, seconds = sum(rest), max(rest, default=0.0)
        elif seconds > limit + one:
            # The trials that run at the end of the budget finish.
            work, seconds = (limit + one) * side_by_side, limit + one
        parts = [f"about {in_words(seconds)} left"] if work else []
        if self._price is not None:
            used = self._used + sum(running.values())
            cost = f"cost {self._at_most}{self._price * used / 3600:.2f}"
            if work:
                whole = self._price * (used + work) / 3600
                cost += f", {self._at_most}about {whole:.2f} in all"
            parts.append(cost)
        return "   ".join(parts)


def in_words(seconds: float) -> str:
    """Return a duration in its two largest units, such as `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
