"""Pictures of a search: how it went, what mattered in it and what its trials transfer.

Four of them are Optuna's plots, of a study that is made of the trials as they ended.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from xlt_ray.config.spec import Categorical, Distribution, Integer, LogUniform
from xlt_ray.figures.results import COLOURS, ZERO_SHOT_MEAN, add_legend, new_figure, say_values
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.plan import BASELINE, BASELINES
from xlt_ray.tracking.descriptions import shown, signs

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

MOST_ROWS = 40
"""Ranked trials in the heat map; more would not be legible."""
_MOST_KEYS = 4
"""Numeric keys in the landscape: a panel for each two."""

_STOPPED_EARLY = ("pruned", "interrupted")
_FINISHED, _STOPPED, _BEST = COLOURS[2], COLOURS[7], COLOURS[1]


class NothingToDraw(Exception):
    """Too little is known for a picture; the text says what is missing."""


def history(entries: Sequence[Entry], objective: str) -> Figure:
    """Draw each trial's objective, in the order in which the trials were proposed.

    Args:
        entries: The ranked trials.
        objective: Name of the dev metric that ranks, in [0, 1].

    Returns:
        Optuna's plot of the optimisation history: the finished trials and the best of them so far,
        in percent; with pruned ones as empty circles and plain fine-tuning as a line.

    Raises:
        NothingToDraw: If fewer than two trials finished.
    """
    from optuna.visualization.matplotlib import plot_optimization_history

    trials = sorted((entry for entry in entries if entry.label not in BASELINES), key=_number)
    figure = _by_optuna(plot_optimization_history, _study(trials, {}), objective, 7.5, 4.0)
    [axes] = figure.axes
    axes.collections[0].set_label("finished")
    axes.lines[0].set(label="best so far", drawstyle="steps-post")
    stopped = [place for place, entry in enumerate(trials) if entry.status in _STOPPED_EARLY]
    if stopped:
        reached = [_percent(trials[place].objective) for place in stopped]
        axes.scatter(stopped, reached, facecolors="none", edgecolors="0.4", label="pruned")
    plain = leaderboard.baseline(entries)
    if plain is not None:
        level = _percent(plain.objective)
        axes.axhline(level, color=COLOURS[0], linestyle="--", linewidth=1.2, label=BASELINE)
    every = ceil(len(trials) / 15)
    axes.set_xticks(range(0, len(trials), every), [entry.label for entry in trials[::every]])
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
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


def importances(
    entries: Sequence[Entry], parameters: Mapping[str, Distribution], objective: str
) -> Figure:
    """Draw how much of the objective's variance each searched key explains.

    Args:
        entries: The ranked trials.
        parameters: The searched keys.
        objective: Name of the dev metric that ranks, in [0, 1].

    Returns:
        Optuna's plot of the importances by fANOVA over the finished proposals, shares in [0, 1] of
        the keys that all of them have: bars, the longest on top.

    Raises:
        NothingToDraw: If fewer than two proposals finished, they all ended alike, they have no key
            in common, or nothing is searched.
    """
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization.matplotlib import plot_param_importances

    trials = _proposals(entries, parameters)
    study = _study(trials, parameters)
    if len({entry.objective for entry in trials if entry.status == "finished"}) == 1:
        raise NothingToDraw("all finished proposals ended alike")
    evaluator = FanovaImportanceEvaluator(seed=0)
    height = 0.36 * len(parameters) + 1.3
    figure = _by_optuna(plot_param_importances, study, objective, 6.4, height, evaluator=evaluator)
    [axes] = figure.axes
    if not axes.patches:
        raise NothingToDraw("the finished proposals have no key in common")
    axes.legend().remove()
    axes.set_xlabel("share of the objective's variance (fANOVA)")
    return figure


def slices(
    entries: Sequence[Entry], parameters: Mapping[str, Distribution], objective: str
) -> Figure:
    """Draw the objective over each searched key.

    Args:
        entries: The ranked trials.
        parameters: The searched keys.
        objective: Name of the dev metric that ranks, in [0, 1].

    Returns:
        Optuna's slice plot: a panel for each key, in alphabetical order, with the finished
        proposals that have it, in percent; the later, the darker.

    Raises:
        NothingToDraw: If fewer than two proposals finished, or nothing is searched.
    """
    from optuna.visualization.matplotlib import plot_slice

    trials = _proposals(entries, parameters)
    # Optuna makes each panel half as wide as it is told.
    figure = _by_optuna(plot_slice, _study(trials, parameters), objective, 5.2, 4.0)
    *panels, bar = figure.axes
    labels = np.array([int(entry.label) for entry in trials])
    given = {_name(key): distribution for key, distribution in parameters.items()}
    for axes in panels:
        _mark(axes.xaxis, given[axes.get_xlabel()])
        # Else each panel's colours would have a meaning of their own.
        dots = axes.collections[0]
        dots.set_array(labels[np.asarray(dots.get_array(), dtype=int)])
        dots.set_clim(labels[0], labels[-1])
    bar.locator_params(axis="y", integer=True)
    return figure


def parallel_coordinates(
    entries: Sequence[Entry], parameters: Mapping[str, Distribution], objective: str
) -> Figure:
    """Draw every finished proposal as a line through its objective and its values.

    Args:
        entries: The ranked trials.
        parameters: The searched keys.
        objective: Name of the dev metric that ranks, in [0, 1].

    Returns:
        Optuna's plot of parallel coordinates: an axis for the objective, in percent, and one for
        each key, in alphabetical order, with a place for having no such key; brighter lines reach
        a higher objective, and the best one is bold.

    Raises:
        NothingToDraw: If fewer than two proposals finished, or nothing is searched.
    """
    from optuna.visualization.matplotlib import plot_parallel_coordinate

    study = _study(_proposals(entries, parameters), parameters)
    longest = max(map(len, (f"{objective} (%)", *map(_name, parameters))))
    width = max(1.4, 0.09 * longest) * len(parameters) + 2.5
    figure = _by_optuna(plot_parallel_coordinate, study, objective, width, 4.0)
    axes, _, *others = figure.axes
    axes.tick_params(axis="x", labelrotation=0)
    [lines] = axes.collections
    reached = np.asarray(lines.get_array())
    thickness = np.where(reached == reached.max(), 3.0, 1.2)
    lines.set(cmap="viridis", linewidth=thickness, clip_on=False)
    for axes in others:
        if axes.get_yscale() == "log":
            ticks = np.geomspace(*axes.get_ylim(), 5)
            axes.set_yticks(ticks, [shown(float(tick)) for tick in ticks])
            axes.minorticks_off()
        for label in axes.get_yticklabels():  # Lines pass behind them.
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})
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
    from matplotlib.figure import Figure

    numeric = [key for key, given in parameters.items() if not isinstance(given, Categorical)]
    if len(numeric) < 2:
        raise NothingToDraw("fewer than two numeric keys are searched")
    trials = _proposals(entries, parameters)
    values = [_percent(entry.objective) for entry in trials]
    pairs = list(combinations(numeric[:_MOST_KEYS], 2))
    columns = min(len(pairs), 3)
    rows = len(pairs) // columns
    figure = Figure(figsize=(2.9 * columns + 1.3, 2.7 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    scales = {
        key: "log" if isinstance(given, LogUniform) else "linear"
        for key, given in parameters.items()
    }
    marks: dict[str, Line2D] = {}
    image = None
    for axes, (x, y) in zip(panels.flat, pairs, strict=True):
        for name, group in _groups(trials).items():
            having = [entry for entry in group if x in entry.values and y in entry.values]
            marker, size = ("*", 190) if name.startswith("best") else ("o", 45)
            if name == "pruned":
                marker, size = "v", 22
            image = axes.scatter(
                [entry.values[x] for entry in having],
                [entry.values[y] for entry in having],
                c=[_percent(entry.objective) for entry in having],
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
        axes.set(xscale=scales[x], yscale=scales[y], xlabel=_name(x), ylabel=_name(y))
        _mark(axes.xaxis, parameters[x])
        _mark(axes.yaxis, parameters[y])
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


def _study(trials: Sequence[Entry], parameters: Mapping[str, Distribution]) -> Study:
    """Make an Optuna study of trials as they ended, their objectives in percent.

    Not the search's own study: that has pruned trials as completed ones, for TPE to learn from.

    Args:
        trials: In the order of their numbers.
        parameters: The keys to take over; a trial may lack some.

    Returns:
        The study, in memory.

    Raises:
        NothingToDraw: If fewer than two trials finished.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    if sum(entry.status == "finished" for entry in trials) < 2:
        raise NothingToDraw("fewer than two finished trials")
    states = {"finished": TrialState.COMPLETE, "failed": TrialState.FAIL}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for entry in trials:
        keys = [key for key in parameters if key in entry.values]
        study.add_trial(
            create_trial(
                state=states.get(entry.status, TrialState.PRUNED),
                value=_percent(entry.objective) if entry.status == "finished" else None,
                params={_name(key): entry.values[key] for key in keys},
                distributions={_name(key): _distribution(parameters[key]) for key in keys},
            )
        )
    return study


def _distribution(given: Distribution) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(given, Categorical):
        return CategoricalDistribution(given.choices)
    if isinstance(given, Integer):
        return IntDistribution(given.low, given.high)
    return FloatDistribution(given.low, given.high, log=isinstance(given, LogUniform))


def _by_optuna(
    plot: Callable[..., Any],
    study: Study,
    objective: str,
    width: float,
    height: float,
    **options: Any,
) -> Figure:
    """Let a function of Optuna draw a study; sizes in inches.

    It draws with pyplot, which belongs to the whole process. So this needs no screen, also in a
    thread, and what it changes there does not stay.
    """
    from matplotlib import get_backend, pyplot, rc_context

    backend, others = get_backend(), pyplot.get_fignums()
    pyplot.switch_backend("agg")
    try:
        with rc_context(), warnings.catch_warnings():
            pyplot.rcParams["figure.figsize"] = width, height
            pyplot.rcParams["figure.constrained_layout.use"] = True
            # That it is experimental, and that there is one value only on an axis.
            warnings.simplefilter("ignore")
            plot(study, target_name=f"{objective} (%)", **options)
        figure = pyplot.gcf()
    finally:
        for number in set(pyplot.get_fignums()) - set(others):
            pyplot.close(number)
        pyplot.switch_backend(backend)
    figure.set_layout_engine("constrained", w_pad=0.1)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set_fontsize("medium")  # Larger, an objective's name may not fit.
    return figure


def _mark(axis: Axis, given: Distribution) -> None:
    """Write the ends and the middle of a searched range on an axis, or the values of a choice."""
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


def _proxy(marker: str, size: float) -> Line2D:
    """A mark for the legend where the marks themselves have many colours."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color="0.5", marker=marker, markersize=size**0.5, linestyle="none")


def _name(key: str) -> str:
    return key.rpartition(".")[2].replace("_", " ")


def _number(entry: Entry) -> int:
    """Order of proposals; what is run whatever is proposed comes first."""
    return int(entry.label) if entry.label.isdigit() else 0


def _percent(value: float | None) -> float:
    return np.nan if value is None else 100 * value
