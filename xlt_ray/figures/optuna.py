"""Optuna's own plots, of a study made from the trials' results; the report draws them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from xlt_ray.config.space import Categorical, Distribution, Integer, LogUniform
from xlt_ray.figures.common import (
    STOPPED_EARLY,
    NothingToDraw,
    mark_range,
    objective_label,
    percent,
    proposals,
    short_name,
)
from xlt_ray.figures.style import COLOURS
from xlt_ray.names import BASELINE
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.summary import shown
from xlt_ray.search.trials import TrialStatus

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.distributions import BaseDistribution
    from optuna.study import Study


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

    trials = sorted(
        (entry for entry in entries if not (entry.trial.baseline or entry.trial.soup)),
        key=lambda entry: entry.trial.number,
    )
    figure = _by_optuna(plot_optimization_history, _study(trials, {}), objective, 7.5, 4.0)
    [axes] = figure.axes
    axes.collections[0].set_label("finished")
    axes.lines[0].set(label="best so far", drawstyle="steps-post")
    stopped = [place for place, entry in enumerate(trials) if entry.status in STOPPED_EARLY]
    if stopped:
        reached = [percent(trials[place].objective) for place in stopped]
        axes.scatter(stopped, reached, facecolors="none", edgecolors="0.4", label="pruned")
    plain = leaderboard.baseline(entries)
    if plain is not None:
        level = percent(plain.objective)
        axes.axhline(level, color=COLOURS[0], linestyle="--", linewidth=1.2, label=BASELINE)
    every = ceil(len(trials) / 15)
    axes.set_xticks(range(0, len(trials), every), [entry.label for entry in trials[::every]])
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
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
            in common or do not differ in one, or nothing is searched.
    """
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.visualization.matplotlib import plot_param_importances

    trials = proposals(entries, parameters)
    study = _study(trials, parameters)
    finished = [entry for entry in trials if entry.status == TrialStatus.FINISHED]
    if len({entry.objective for entry in finished}) == 1:
        raise NothingToDraw("all finished proposals ended alike")
    common = [key for key in parameters if all(key in entry.values for entry in finished)]
    if common and all(len({entry.values[key] for entry in finished}) == 1 for key in common):
        # Optuna's evaluator fails: nothing explains the objective's variance.
        raise NothingToDraw("the finished proposals do not differ in a key that all of them have")
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

    trials = proposals(entries, parameters)
    # Optuna makes each panel half as wide as the figure size says.
    figure = _by_optuna(plot_slice, _study(trials, parameters), objective, 5.2, 4.0)
    *panels, bar = figure.axes
    labels = np.array([entry.trial.number for entry in trials])
    given = {short_name(key): distribution for key, distribution in parameters.items()}
    for axes in panels:
        mark_range(axes.xaxis, given[axes.get_xlabel()])
        # One colour scale for all panels.
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

    study = _study(proposals(entries, parameters), parameters)
    longest = max(map(len, (*objective_label(objective).split("\n"), *map(short_name, parameters))))
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


def _study(trials: Sequence[Entry], parameters: Mapping[str, Distribution]) -> Study:
    """Return an Optuna study of the trials' results, with objectives in percent.

    The search's own study does not serve: it has pruned trials as completed ones, for TPE.

    Args:
        trials: The trials, in the order of their numbers.
        parameters: The keys to include; a trial may lack some.

    Returns:
        The study, in memory.

    Raises:
        NothingToDraw: If fewer than two trials finished.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    if sum(entry.status == TrialStatus.FINISHED for entry in trials) < 2:
        raise NothingToDraw("fewer than two finished trials")
    states = {TrialStatus.FINISHED: TrialState.COMPLETE, TrialStatus.FAILED: TrialState.FAIL}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for entry in trials:
        keys = [key for key in parameters if key in entry.values]
        study.add_trial(
            create_trial(
                state=states.get(entry.status, TrialState.PRUNED),
                value=percent(entry.objective) if entry.status == TrialStatus.FINISHED else None,
                params={short_name(key): entry.values[key] for key in keys},
                distributions={short_name(key): _distribution(parameters[key]) for key in keys},
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
    """Return the figure that a function of Optuna draws of a study; sizes in inches.

    Optuna draws with pyplot, whose state belongs to the whole process. This function needs no
    screen, works in any thread, and restores pyplot's state.
    """
    from matplotlib import get_backend, pyplot, rc_context

    backend, others = get_backend(), pyplot.get_fignums()
    pyplot.switch_backend("agg")
    try:
        with rc_context(), warnings.catch_warnings():
            pyplot.rcParams["figure.figsize"] = width, height
            pyplot.rcParams["figure.constrained_layout.use"] = True
            # Optuna warns that a plot is experimental, or that an axis has a single value.
            warnings.simplefilter("ignore")
            plot(study, target_name=objective_label(objective), **options)
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
