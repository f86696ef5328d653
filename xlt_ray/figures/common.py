"""The trials that figures show, in which order and by which names; figures.search and
figures.optuna call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xlt_ray.config.space import Categorical, Distribution, Integer, LogUniform
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.summary import shown
from xlt_ray.search.trials import TrialStatus

if TYPE_CHECKING:
    from matplotlib.axis import Axis

STOPPED_EARLY = (TrialStatus.PRUNED, TrialStatus.INTERRUPTED)
"""Statuses that figures show as pruned."""

LONGEST_LABEL = 30
"""Characters of an objective that fit beside a picture."""


class NothingToDraw(Exception):
    """There are too few results for a picture; the text says which are missing."""


def proposals(entries: Sequence[Entry], parameters: Mapping[str, Distribution]) -> list[Entry]:
    """Return the proposals that have an objective, in their order.

    Raises:
        NothingToDraw: If there are fewer than two, or the search has no parameters.
    """
    if not parameters:
        raise NothingToDraw("nothing is searched")
    found = [
        entry
        for entry in entries
        if entry.trial.proposed
        and entry.objective is not None
        and entry.status != TrialStatus.FAILED
    ]
    if len(found) < 2:
        raise NothingToDraw("fewer than two proposals with an objective")
    return sorted(found, key=lambda entry: entry.trial.number)


def short_name(key: str) -> str:
    """Return a key's name in a figure: `noise radius` for `method.view.noise_radius`."""
    return key.rpartition(".")[2].replace("_", " ")


def objective_label(objective: str) -> str:
    """Return the label of an objective's axis in percent; a long name takes two lines."""
    measure, place = objective.rsplit("/", 1)
    line_break = "\n" if len(objective) > LONGEST_LABEL else ""
    return f"{measure}/{line_break}{place} (%)"


def percent(value: float | None) -> float:
    """Return a share in percent; NaN for None."""
    return np.nan if value is None else 100 * value


def mark_range(axis: Axis, given: Distribution) -> None:
    """Label an axis with the ends and the middle of a searched range, or with its choices."""
    if isinstance(given, Categorical):
        names = [label.get_text().strip("'") for label in axis.get_ticklabels()]
        axis.set_ticks(range(len(names)), names, rotation=30, ha="right")
        return
    ticks: list[float] = [given.low, given.high]
    if isinstance(given, LogUniform):
        ticks.insert(1, (given.low * given.high) ** 0.5)
    elif not isinstance(given, Integer):
        ticks.insert(1, (given.low + given.high) / 2)
    axis.set_ticks(ticks, list(map(shown, ticks)))
    axis.minorticks_off()
