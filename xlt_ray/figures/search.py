"""Figures of a search: learning curves, landscape and accuracies of its trials; the report draws
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from xlt_ray.config.space import Categorical, Distribution, LogUniform
from xlt_ray.figures.common import (
    NothingToDraw,
    mark_range,
    objective_label,
    percent,
    proposals,
    short_name,
)
from xlt_ray.figures.style import COLOURS, add_legend, new_figure, say_values
from xlt_ray.names import BASELINE, ZERO_SHOT_MEAN
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.summary import signs
from xlt_ray.search.trials import TrialStatus

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MOST_ROWS = 40
"""Maximum number of ranked trials in the heat map, to keep it legible."""
_MOST_KEYS = 4
"""Maximum number of numeric keys in the landscape, which has a panel for each pair."""
_FINISHED, _STOPPED, _BEST = COLOURS[2], COLOURS[7], COLOURS[1]


def learning_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], entries: Sequence[Entry], objective: str
) -> Figure:
    """Draw the objective of every trial over its steps.

    Args:
        curves: Step and objective of the selected weights, in [0, 1], at each dev evaluation, by
            label.
        entries: The ranked trials.
        objective: Name of the dev metric that ranks.

    Returns:
        Lines: pruned trials thin, the best one bold (soups have no curve), baselines dashed.

    Raises:
        NothingToDraw: If no trial was evaluated.
    """
    drawn = [entry for entry in entries if curves.get(entry.label)]
    if not drawn:
        raise NothingToDraw("no trial was evaluated")
    figure, axes = new_figure(7.5, 4.2)
    marks: dict[str, Line2D] = {}
    others = 0
    best = next((entry for entry in drawn if entry.rank), None)
    # The best trial on top, then the finished ones.
    for entry in reversed(drawn):
        look: dict[str, Any] = {"color": _STOPPED, "linewidth": 0.7, "zorder": 2}
        name: str = "pruned" if entry.status == TrialStatus.INTERRUPTED else entry.status
        if entry.trial.baseline:
            name = entry.label
            look = {"color": COLOURS[0], "linewidth": 1.6, "linestyle": "--", "zorder": 4}
            if name != BASELINE:
                look |= {"color": COLOURS[3:7][others % 4], "linestyle": ("--", "-.")[others > 3]}
                others += 1
        elif entry.status == TrialStatus.FINISHED:
            look = {"color": _FINISHED, "linewidth": 1.2, "zorder": 3}
        elif entry.status == TrialStatus.FAILED:
            look |= {"linestyle": ":"}
        if entry is best:
            name = f"best ({entry.label})"
            look |= {"color": _BEST, "linewidth": 3.0, "zorder": 5}
        steps, values = np.array(curves[entry.label], dtype=float).T
        [line] = axes.plot(steps, 100 * values, marker=".", markersize=4, **look)
        line.set_gid(entry.label)
        marks[name] = line
    axes.grid(axis="y", color="0.85", linewidth=0.6)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(f"{objective_label(objective)},\nselected weights")
    add_legend(figure, list(marks.values())[::-1], list(marks)[::-1])
    return figure


def landscape(
    entries: Sequence[Entry], parameters: Mapping[str, Distribution], objective: str
) -> Figure:
    """Draw the objective over each two of the numeric keys, as the colour of a mark.

    Args:
        entries: The ranked trials.
        parameters: The searched keys; the first four numeric ones are drawn.
        objective: Name of the dev metric that ranks, in [0, 1].

    Returns:
        A panel for each pair of keys that some proposal has both of.

    Raises:
        NothingToDraw: If fewer than two proposals have an objective, fewer than two numeric keys
            are searched, or no proposal has two of them.
    """
    from matplotlib.figure import Figure

    numeric = [key for key, given in parameters.items() if not isinstance(given, Categorical)]
    if len(numeric) < 2:
        raise NothingToDraw("fewer than two numeric keys are searched")
    trials = proposals(entries, parameters)
    values = [percent(entry.objective) for entry in trials]
    pairs = [
        (x, y)
        for x, y in combinations(numeric[:_MOST_KEYS], 2)
        if any(x in entry.values and y in entry.values for entry in trials)
    ]
    if not pairs:
        raise NothingToDraw("no proposal has two numeric keys")
    columns = min(len(pairs), 3)
    rows = ceil(len(pairs) / columns)
    figure = Figure(figsize=(2.9 * columns + 1.3, 2.7 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    scales = {
        key: "log" if isinstance(given, LogUniform) else "linear"
        for key, given in parameters.items()
    }
    marks: dict[str, Line2D] = {}
    image = None
    for axes in panels.flat[len(pairs) :]:
        axes.remove()
    for axes, (x, y) in zip(panels.flat[: len(pairs)], pairs, strict=True):
        for name, group in _groups(trials).items():
            having = [entry for entry in group if x in entry.values and y in entry.values]
            marker, size = ("*", 190) if name.startswith("best") else ("o", 45)
            if name == "pruned":
                marker, size = "v", 22
            image = axes.scatter(
                [entry.values[x] for entry in having],
                [entry.values[y] for entry in having],
                c=[percent(entry.objective) for entry in having],
                vmin=min(values),
                vmax=max(values),
                cmap="viridis",
                marker=marker,
                s=size,
                edgecolors="0.2",
                linewidths=0.5,
                zorder=3,
            )
            marks[name] = _proxy(marker, size)
        axes.grid(color="0.9", linewidth=0.6)
        axes.set(xscale=scales[x], yscale=scales[y], xlabel=short_name(x), ylabel=short_name(y))
        mark_range(axes.xaxis, parameters[x])
        mark_range(axes.yaxis, parameters[y])
    assert image is not None  # There are two proposals at least.
    figure.colorbar(image, ax=panels.flat[: len(pairs)], label=objective_label(objective))
    add_legend(figure, list(marks.values()), list(marks))
    return figure


def accuracy_of_trials(entries: Sequence[Entry], languages: Sequence[str], source: str) -> Figure:
    """Draw the test accuracy of every finished trial in every language.

    Args:
        entries: The ranked trials.
        languages: Language codes.
        source: Code of the source language; shown first.

    Returns:
        A heat map: the trials in the order of their ranks, at most :data:`MOST_ROWS`, and below
        them the baselines with a lower rank.

    Raises:
        NothingToDraw: If no trial finished.
    """
    ranked = [entry for entry in entries if entry.rank is not None]
    if not ranked:
        raise NothingToDraw("no trial finished")
    upper = ranked[:MOST_ROWS]
    baselines = [entry for entry in ranked[MOST_ROWS:] if entry.trial.baseline]
    rows = [*upper, *baselines]
    codes = [source, *(code for code in languages if code != source)]
    accuracies = np.array(
        [
            [percent(entry.test[f"accuracy/{code}"]) for code in (*codes, ZERO_SHOT_MEAN)]
            for entry in rows
        ]
    )
    named = [
        # The label of any other trial says which configuration it is.
        f"{entry.rank}.  {entry.label}"
        + (f"  {signs(entry.values)}" if entry.trial.proposed else "")
        + (" (baseline)" if entry.trial.baseline else "")
        for entry in rows
    ]
    width = 0.44 * (len(codes) + 1) + 0.075 * max(map(len, named)) + 1.4
    figure, axes = new_figure(max(width, 5.0), 0.27 * len(rows) + 1.3)
    image = axes.imshow(accuracies, cmap="viridis", aspect="auto")
    figure.colorbar(image, ax=axes, label="test accuracy (%)")
    say_values(axes, image, digits=1)
    axes.axvline(len(codes) - 0.5, color="white", linewidth=4)
    if baselines:
        axes.axhline(len(upper) - 0.5, color="white", linewidth=4)
    axes.set_xticks(range(len(codes) + 1), [f"{source}\nsource", *codes[1:], "target\nmean"])
    axes.set_yticks(range(len(rows)), named)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("language of the test texts")
    if len(rows) < len(ranked):
        more = " and the baselines" if baselines else ""
        axes.set_title(
            f"the first {len(upper)} of {len(ranked)} finished trials{more}", fontsize=10
        )
    return figure


def _groups(trials: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return the proposals by the mark that they get; each is in one group."""
    best = leaderboard.best(trials)
    groups = {
        "pruned": [entry for entry in trials if entry.status != TrialStatus.FINISHED],
        "finished": [
            entry for entry in trials if entry.status == TrialStatus.FINISHED and entry is not best
        ],
        f"best ({best.label})" if best else "": [best] if best else [],
    }
    return {name: group for name, group in groups.items() if group}


def _proxy(marker: str, size: float) -> Line2D:
    """Return a grey mark for the legend, because the marks themselves have many colours."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color="0.5", marker=marker, markersize=size**0.5, linestyle="none")
