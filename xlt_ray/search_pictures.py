"""Pictures of a search: how it went, what mattered in it and what its trials transfer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xlt_ray import leaderboard
from xlt_ray.leaderboard import Entry
from xlt_ray.notes import shown, signs
from xlt_ray.pictures import COLOURS, ZERO_SHOT_MEAN, add_legend, new_figure, say_values
from xlt_ray.plan import BASELINE, BASELINES
from xlt_ray.spec import Categorical, Distribution, Integer, LogUniform

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MOST_ROWS = 40
"""Ranked trials in the heat map; more would not be legible."""
_MOST_KEYS = 4
"""Numeric keys in the landscape: a panel for each two."""

_FINISHED, _STOPPED, _BEST = COLOURS[2], COLOURS[7], COLOURS[1]


class NothingToDraw(Exception):
    """Too little is known for a picture; the text says what is missing."""


def history(entries: Sequence[Entry], objective: str) -> Figure:
    """Draw each trial's objective, in the order in which the trials were proposed.

    Args:
        entries: The ranked trials.
        objective: Name of the dev metric that ranks, in [0, 1].

    Returns:
        A dot plot with the best finished trial so far, and plain fine-tuning as a line.

    Raises:
        NothingToDraw: If fewer than two trials have an objective.
    """
    trials = sorted((entry for entry in entries if entry.label not in BASELINES), key=_number)
    values = np.array([_percent(entry.objective) for entry in trials])
    if np.isfinite(values).sum() < 2:
        raise NothingToDraw("fewer than two trials with an objective")
    places = np.arange(len(trials))
    status = np.array([entry.status for entry in trials])
    finished, stopped = status == "finished", np.isin(status, ("pruned", "interrupted"))
    figure, axes = new_figure(min(max(0.26 * len(trials) + 1.2, 5.0), 14.0), 3.6)
    marks = {}
    if finished.any():
        marks["finished"] = _dots(axes, places[finished], values[finished])
        # Of pruned trials the objective is that of fewer steps; none of them has a rank.
        so_far = np.fmax.accumulate(np.where(finished, values, np.nan))
        [marks["best so far"]] = axes.plot(
            places, so_far, color=_BEST, linewidth=1.6, drawstyle="steps-post", zorder=2
        )
    if stopped.any():
        marks["pruned"] = _dots(axes, places[stopped], values[stopped], stopped=True)
    failed = status == "failed"
    if failed.any():
        [marks["failed"]] = axes.plot(
            places[failed],
            np.full(failed.sum(), 0.03),
            color=COLOURS[0],
            marker="x",
            markersize=5,
            linestyle="none",
            transform=axes.get_xaxis_transform(),
        )
    marks |= _plain_line(axes, entries)
    every = ceil(len(trials) / 40)
    axes.set_xticks(places[::every], [entry.label for entry in trials[::every]])
    if len(trials) > 12:
        axes.tick_params(axis="x", rotation=90)
    axes.set_xlim(-0.6, len(trials) - 0.4)
    axes.grid(axis="y", color="0.85", linewidth=0.6)
    axes.set_xlabel("trial, in the order of proposals")
    axes.set_ylabel(f"{objective} (%)")
    add_legend(figure, list(marks.values()), list(marks))
    return figure


def learning_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], entries: Sequence[Entry], objective: str
) -> Figure:
    """Draw the objective of every trial over its steps.

    Args:
        curves: Step and best objective so far, in [0, 1], at each dev evaluation, by label.
        entries: The ranked trials.
        objective: Name of the dev metric that ranks.

    Returns:
        Lines: pruned trials thin, the best one bold, baselines dashed.

    Raises:
        NothingToDraw: If no trial was evaluated.
    """
    drawn = [entry for entry in entries if curves.get(entry.label)]
    if not drawn:
        raise NothingToDraw("no trial was evaluated")
    figure, axes = new_figure(7.5, 4.2)
    marks: dict[str, Line2D] = {}
    others = 0
    # The best on top of the finished, those on top of the others.
    for entry in reversed(drawn):
        look: dict[str, Any] = {"color": _STOPPED, "linewidth": 0.7, "zorder": 2}
        name: str = "pruned" if entry.status == "interrupted" else entry.status
        if entry.label in BASELINES:
            name = entry.label
            look = {"color": COLOURS[0], "linewidth": 1.6, "linestyle": "--", "zorder": 4}
            if name != BASELINE:
                look |= {"color": COLOURS[3:7][others % 4], "linestyle": ("--", "-.")[others > 3]}
                others += 1
        elif entry.rank == 1:
            name = f"best ({entry.label})"
            look = {"color": _BEST, "linewidth": 3.0, "zorder": 5}
        elif entry.status == "finished":
            look = {"color": _FINISHED, "linewidth": 1.2, "zorder": 3}
        elif entry.status == "failed":
            look |= {"linestyle": ":"}
        steps, values = np.array(curves[entry.label], dtype=float).T
        [line] = axes.plot(steps, 100 * values, marker=".", markersize=4, **look)
        line.set_gid(entry.label)
        marks[name] = line
    axes.grid(axis="y", color="0.85", linewidth=0.6)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(f"{objective}, best so far (%)")
    add_legend(figure, list(marks.values())[::-1], list(marks)[::-1])
    return figure


def importances(shares: Mapping[str, float]) -> Figure:
    """Draw how much of the objective's variance each searched key explains.

    Args:
        shares: Share in [0, 1] by key.

    Returns:
        Bars, the longest on top.
    """
    ordered = sorted(shares.items(), key=lambda item: item[1])
    figure, axes = new_figure(6.0, 0.36 * len(ordered) + 1.0)
    bars = axes.barh(range(len(ordered)), [100 * share for _, share in ordered], color=_FINISHED)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_yticks(range(len(ordered)), [_name(key) for key, _ in ordered])
    axes.set_xlim(0, 1.12 * max(1.0, *(100 * share for share in shares.values())))
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("share of the objective's variance (%, fANOVA)")
    return figure


def importance_shares(file: Path) -> dict[str, float]:
    """How much of the objective's variance each searched key explains, by Optuna's fANOVA.

    Args:
        file: The study, as :mod:`xlt_ray.study` keeps it.

    Returns:
        Share in [0, 1] by key, of the keys that every proposal has.

    Raises:
        NothingToDraw: If the study has fewer than two completed proposals, they all ended alike,
            or they have no key in common.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if not file.exists():
        raise NothingToDraw("there is no study")
    study = optuna.load_study(
        study_name=None, storage=JournalStorage(JournalFileBackend(str(file)))
    )
    completed = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(completed) < 2 or len({trial.value for trial in completed}) == 1:
        raise NothingToDraw("fewer than two completed proposals that differ")
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    if not shares:
        raise NothingToDraw("the proposals have no key in common")
    return dict(shares)


def slices(
    entries: Sequence[Entry], parameters: Mapping[str, Distribution], objective: str
) -> Figure:
    """Draw the objective over each searched key.

    Args:
        entries: The ranked trials.
        parameters: The searched keys.
        objective: Name of the dev metric that ranks, in [0, 1].

    Returns:
        A panel for each key.

    Raises:
        NothingToDraw: If fewer than two proposals have an objective, or nothing is searched.
    """
    trials = _proposals(entries, parameters)
    columns = min(len(parameters), 4)
    rows = ceil(len(parameters) / columns)
    figure, panels = _grid(2.4 * columns + 0.9, 2.5 * rows + 0.6, rows, columns)
    marks: dict[str, Line2D] = {}
    for axes, (key, distribution) in zip(panels, parameters.items(), strict=False):
        scale = _Scale.of(distribution)
        for name, group in _groups(trials).items():
            having = [entry for entry in group if key in entry.values]
            x = np.array([scale.place(entry.values[key]) for entry in having])
            y = np.array([_percent(entry.objective) for entry in having])
            marks[name] = (
                _star(axes, x, y)
                if name.startswith("best")
                else _dots(axes, x, y, stopped=name == "pruned")
            )
        scale.mark(axes, "x")
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_xlabel(_name(key))
    for axes in panels[::columns]:
        axes.set_ylabel(f"{objective} (%)")
    low, high = _range(trials)
    for axes in panels:
        axes.set_ylim(low, high)
    for axes in panels[len(parameters) :]:
        axes.remove()
    add_legend(figure, list(marks.values()), list(marks))
    return figure


def parallel_coordinates(
    entries: Sequence[Entry], parameters: Mapping[str, Distribution], objective: str
) -> Figure:
    """Draw every proposal as a line through its values to its objective.

    Args:
        entries: The ranked trials.
        parameters: The searched keys.
        objective: Name of the dev metric that ranks, in [0, 1].

    Returns:
        An axis for each key and one for the objective; brighter lines reach a higher one, pruned
        proposals are thin and the best one is bold.

    Raises:
        NothingToDraw: If fewer than two proposals have an objective, or nothing is searched.
    """
    from matplotlib import colormaps

    trials = _proposals(entries, parameters)
    low, high = _range(trials)
    names = [*(_name(key) for key in parameters), f"{objective} (%)"]
    each = max(1.4, 0.095 * max(map(len, names)))
    figure, axes = new_figure(each * len(names) + 0.4, 3.8)
    scales = {key: _Scale.of(distribution) for key, distribution in parameters.items()}
    scored = _Scale((0.0, 1.0), (f"{low:.1f}", f"{high:.1f}"), lambda v: (v - low) / (high - low))
    # The best last, on top.
    for entry in sorted(trials, key=lambda entry: (entry.rank == 1, entry.objective)):
        reached = scored.place(_percent(entry.objective))
        places = [
            scale.place(entry.values[key]) if key in entry.values else np.nan
            for key, scale in scales.items()
        ]
        width = 3.0 if entry.rank == 1 else 1.4 if entry.status == "finished" else 0.6
        [line] = axes.plot(
            [*places, reached], color=colormaps["viridis"](0.95 * reached), linewidth=width
        )
        line.set_gid(entry.label)
    for place, scale in enumerate([*scales.values(), scored]):
        axes.axvline(place, color="0.3", linewidth=0.8, zorder=3)
        for tick, name in zip(scale.ticks, scale.names, strict=True):
            axes.text(
                place - 0.03,
                tick,
                name,
                fontsize=8,
                ha="right",
                va="center",
                zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )
    axes.set_xlim(-0.6, len(names) - 0.6)
    axes.set_ylim(-0.06, 1.06)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
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
        A panel for each two keys.

    Raises:
        NothingToDraw: If fewer than two proposals have an objective, or fewer than two numeric
            keys are searched.
    """
    numeric = {
        key: _Scale.of(distribution)
        for key, distribution in parameters.items()
        if not isinstance(distribution, Categorical)
    }
    if len(numeric) < 2:
        raise NothingToDraw("fewer than two numeric keys are searched")
    trials = _proposals(entries, parameters)
    pairs = list(combinations(list(numeric)[:_MOST_KEYS], 2))
    columns = min(len(pairs), 3)
    rows = len(pairs) // columns
    figure, panels = _grid(2.9 * columns + 1.3, 2.7 * rows + 0.6, rows, columns)
    low, high = _range(trials)
    marks: dict[str, Line2D] = {}
    image = None
    for axes, (x, y) in zip(panels, pairs, strict=True):
        for name, group in _groups(trials).items():
            having = [entry for entry in group if x in entry.values and y in entry.values]
            marker, size = ("*", 190) if name.startswith("best") else ("o", 45)
            if name == "pruned":
                marker, size = "v", 22
            image = axes.scatter(
                [numeric[x].place(entry.values[x]) for entry in having],
                [numeric[y].place(entry.values[y]) for entry in having],
                c=[_percent(entry.objective) for entry in having],
                vmin=low,
                vmax=high,
                cmap="viridis",
                marker=marker,
                s=size,
                edgecolors="0.2",
                linewidths=0.5,
                zorder=3,
            )
            marks[name] = _proxy(marker, size)
        numeric[x].mark(axes, "x")
        numeric[y].mark(axes, "y")
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_xlabel(_name(x))
        axes.set_ylabel(_name(y))
    assert image is not None  # There are two proposals at least.
    figure.colorbar(image, ax=panels, label=f"{objective} (%)")
    add_legend(figure, list(marks.values()), list(marks))
    return figure


def accuracy_of_trials(entries: Sequence[Entry], languages: Sequence[str], source: str) -> Figure:
    """Draw the test accuracy of every finished trial in every language.

    Args:
        entries: The ranked trials.
        languages: Language codes.
        source: Code of the source language; shown first.

    Returns:
        A heat map: the ranked trials, at most :data:`MOST_ROWS`, and below them the baselines.

    Raises:
        NothingToDraw: If no trial finished.
    """
    ranked = [entry for entry in entries if entry.rank is not None]
    beside = [entry for entry in entries if entry.rank is None and entry.status == "finished"]
    if not ranked and not beside:
        raise NothingToDraw("no trial finished")
    upper = ranked[:MOST_ROWS]
    rows = [*upper, *beside]
    codes = [source, *(code for code in languages if code != source)]
    percent = np.array(
        [
            [_percent(entry.test[f"accuracy/{code}"]) for code in (*codes, ZERO_SHOT_MEAN)]
            for entry in rows
        ]
    )
    named = [
        # Beside the proposals, what is run whatever they are has a name that says all.
        f"{entry.rank}.  {entry.label}"
        + (f"  {signs(entry.values)}" if entry.label.isdigit() else "")
        if entry.rank is not None
        else f"{entry.label} (baseline)"
        for entry in rows
    ]
    width = 0.44 * (len(codes) + 1) + 0.075 * max(map(len, named)) + 1.4
    figure, axes = new_figure(max(width, 5.0), 0.27 * len(rows) + 1.3)
    image = axes.imshow(percent, cmap="viridis", aspect="auto")
    figure.colorbar(image, ax=axes, label="test accuracy (%)")
    say_values(axes, image, digits=1)
    axes.axvline(len(codes) - 0.5, color="white", linewidth=4)
    if upper and beside:
        axes.axhline(len(upper) - 0.5, color="white", linewidth=4)
    axes.set_xticks(range(len(codes) + 1), [f"{source}\nsource", *codes[1:], "target\nmean"])
    axes.set_yticks(range(len(rows)), named)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("language of the test texts")
    if len(upper) < len(ranked):
        axes.set_title(f"the first {len(upper)} of {len(ranked)} finished trials", fontsize=10)
    return figure


@dataclass(frozen=True)
class _Scale:
    """An axis from 0 to 1 for the values of a searched key."""

    ticks: tuple[float, ...]
    names: tuple[str, ...]
    place: Callable[[Any], float]
    """Function from a value to its place."""

    @staticmethod
    def of(distribution: Distribution) -> _Scale:
        """Spread a distribution over the axis: evenly, what it draws evenly."""
        if isinstance(distribution, Categorical):
            choices = distribution.choices
            last = max(len(choices) - 1, 1)
            ticks = tuple(index / last for index in range(len(choices)))
            return _Scale(
                ticks, tuple(map(shown, choices)), lambda value: choices.index(value) / last
            )
        low, high = float(distribution.low), float(distribution.high)
        if low == high:
            return _Scale((0.5,), (shown(distribution.low),), lambda value: 0.5)
        if isinstance(distribution, LogUniform):
            middle = (low * high) ** 0.5
            return _Scale(
                (0.0, 0.5, 1.0),
                (shown(low), shown(middle), shown(high)),
                lambda value: log(value / low) / log(high / low),
            )
        ends = shown(distribution.low), shown(distribution.high)
        if isinstance(distribution, Integer):
            return _Scale((0.0, 1.0), ends, lambda value: (value - low) / (high - low))
        return _Scale(
            (0.0, 0.5, 1.0),
            (ends[0], shown((low + high) / 2), ends[1]),
            lambda value: (value - low) / (high - low),
        )

    def mark(self, axes: Axes, which: str) -> None:
        """Write its ticks on the `x` or the `y` axis of a panel."""
        ticks, limits = (
            (axes.set_xticks, axes.set_xlim) if which == "x" else (axes.set_yticks, axes.set_ylim)
        )
        ticks(self.ticks, self.names)
        limits(-0.06, 1.06)
        if which == "x" and sum(map(len, self.names)) > 18:
            for label in axes.get_xticklabels():
                label.set(rotation=30, ha="right")


def _proposals(entries: Sequence[Entry], parameters: Mapping[str, Distribution]) -> list[Entry]:
    """The trials that the sampler proposed and that have an objective."""
    if not parameters:
        raise NothingToDraw("nothing is searched")
    found = [
        entry
        for entry in entries
        if entry.label.isdigit() and entry.objective is not None and entry.status != "failed"
    ]
    if len(found) < 2:
        raise NothingToDraw("fewer than two proposals with an objective")
    return sorted(found, key=_number)


def _groups(trials: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Proposals by how they are marked; none is in two groups."""
    best = leaderboard.best(trials)
    groups = {
        "pruned": [entry for entry in trials if entry.status != "finished"],
        "finished": [entry for entry in trials if entry.status == "finished" and entry is not best],
        f"best ({best.label})" if best else "": [best] if best else [],
    }
    return {name: group for name, group in groups.items() if group}


def _range(trials: Sequence[Entry]) -> tuple[float, float]:
    """Lowest and highest objective in %, with some room; never one and the same."""
    values = [_percent(entry.objective) for entry in trials]
    room = max(0.05 * (max(values) - min(values)), 0.1)
    return min(values) - room, max(values) + room


def _grid(width: float, height: float, rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    """Make a figure of several rows of panels; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(width, 4.2), height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _dots(axes: Axes, x: np.ndarray, y: np.ndarray, stopped: bool = False) -> Line2D:
    """Draw finished trials as full circles, stopped ones as empty circles."""
    [marks] = axes.plot(
        x,
        y,
        color=_STOPPED if stopped else _FINISHED,
        marker="o",
        markersize=5,
        markerfacecolor="white" if stopped else _FINISHED,
        linestyle="none",
        zorder=3,
    )
    return marks


def _star(axes: Axes, x: np.ndarray, y: np.ndarray) -> Line2D:
    [mark] = axes.plot(
        x, y, color=_BEST, marker="*", markersize=13, linestyle="none", zorder=4, clip_on=False
    )
    return mark


def _proxy(marker: str, size: float) -> Line2D:
    """A mark for the legend where the marks themselves have many colours."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color="0.5", marker=marker, markersize=size**0.5, linestyle="none")


def _plain_line(axes: Axes, entries: Sequence[Entry]) -> dict[str, Line2D]:
    plain = leaderboard.baseline(entries)
    if plain is None or plain.objective is None:
        return {}
    look: dict[str, Any] = {"color": COLOURS[0], "linestyle": "--", "linewidth": 1.2}
    return {BASELINE: axes.axhline(_percent(plain.objective), **look)}


def _name(key: str) -> str:
    return key.rpartition(".")[2].replace("_", " ")


def _number(entry: Entry) -> int:
    """Order of proposals; what is run whatever is proposed comes first."""
    return int(entry.label) if entry.label.isdigit() else 0


def _percent(value: float | None) -> float:
    return np.nan if value is None else 100 * value
