"""Optuna's plots of a search show what its trials did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from optuna.distributions import FloatDistribution

from tests.support.drawn import assert_texts_are_legible
from tests.support.search_results import (
    KINDS,
    OBJECTIVE,
    PARAMETERS,
    named,
    of_kinds,
    proposals_of,
    search,
)
from xlt_ray.config.space import Categorical, Distribution
from xlt_ray.figures.optuna import history, importances, parallel_coordinates, slices
from xlt_ray.search.leaderboard import Entry


def test_history_shows_the_trials_and_the_best_finished_one_so_far() -> None:
    entries = search(12)
    [axes] = history(entries, OBJECTIVE).axes
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["paper", *(f"{number:02d}" for number in range(1, 13))]
    handles, names = axes.get_legend_handles_labels()
    drawn: dict[str, Any] = dict(zip(names, handles, strict=True))
    assert sorted(drawn) == ["best so far", "finished", "plain", "pruned"]
    objective = {row.label: row.objective or 0 for row in entries}
    for status in ("finished", "pruned"):
        given = [row.label for row in entries if row.status == status and row.label != "plain"]
        shown = {ticks[int(x)]: y for x, y in drawn[status].get_offsets()}
        assert shown == {label: pytest.approx(100 * objective[label]) for label in given}
    finished = {row.label for row in entries if row.status == "finished"}
    best = 0.0
    for label, y in zip(ticks, drawn["best so far"].get_ydata(), strict=True):
        if label in finished:
            best = max(best, 100 * objective[label])
        assert y == pytest.approx(best)
    assert drawn["plain"].get_ydata() == pytest.approx([83, 83])


def test_history_of_many_trials_names_some_of_them() -> None:
    [axes] = history(search(44), OBJECTIVE).axes
    ticks = {
        label.get_text(): place
        for label, place in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
    }
    assert ticks == {"paper": 0} | {f"{number:02d}": number for number in range(3, 45, 3)}


def test_slices_show_the_value_and_objective_of_each_finished_proposal() -> None:
    entries = of_kinds(30)
    *panels, bar = slices(entries, KINDS, OBJECTIVE).axes
    by_name = {axes.get_xlabel(): axes for axes in panels}
    assert list(by_name) == ["kind", "noise radius", "pull weight", "push margin", "radius"]
    finished = proposals_of(entries, "finished")
    assert len(finished) == 19
    for key in KINDS:
        axes = by_name[named(key)]
        choices = [label.get_text() for label in axes.get_xticklabels()]
        dots = axes.collections[0]
        drawn = {}
        for (x, y), number in zip(
            np.asarray(dots.get_offsets()), np.asarray(dots.get_array()), strict=True
        ):
            drawn[f"{number:02.0f}"] = (choices[int(x)] if key.endswith("kind") else x, y)
        having = [row for row in finished if key in row.values]
        assert drawn == {
            row.label: (row.values[key], pytest.approx(100 * (row.objective or 0)))
            for row in having
        }
        assert dots.get_clim() == (1, 30)
    assert bar.get_ylabel() == "Trial"
    assert {name for name, axes in by_name.items() if axes.get_xscale() == "log"} == {"pull weight"}
    low, high = by_name["push margin"].get_xlim()
    assert low <= 0 and high >= 0.5


def test_a_line_goes_through_a_proposals_objective_and_values() -> None:
    entries = of_kinds(30)
    figure = parallel_coordinates(entries, KINDS, OBJECTIVE)
    axes, _, *others = figure.axes
    FigureCanvasAgg(figure).draw()
    names = [label.get_text() for label in axes.get_xticklabels()]
    keys = sorted(KINDS, key=named)
    assert names == [f"{OBJECTIVE} (%)", *map(named, keys)]
    lines: Any = axes.collections[0]
    finished = proposals_of(entries, "finished")
    by_objective = {round(100 * (row.objective or 0), 6): row for row in finished}
    assert len(lines.get_segments()) == len(finished) == len(by_objective)
    for segment in lines.get_segments():
        row = by_objective[round(float(segment[0, 1]), 6)]
        # What one reads off each axis at the height where the line crosses it.
        heights = axes.transData.transform(segment)[:, 1]
        for key, axis, height in zip(keys, others, heights[1:], strict=True):
            value = axis.transData.inverted().transform((0, height))[1]
            if key == "method.view.kind":
                texts = [label.get_text() for label in axis.get_yticklabels()]
                assert texts[round(value)] == row.values[key]
            elif key in row.values:
                assert value == pytest.approx(row.values[key])
            else:
                none = axis.get_yticklabels()[0]
                assert none.get_text() == "None"
                assert value == pytest.approx(none.get_position()[1])
    thickest = int(np.argmax(lines.get_linewidths()))
    reached = np.asarray(lines.get_array())
    assert reached[thickest] == reached.max() == pytest.approx(max(by_objective))


def test_importances_are_those_of_the_finished_proposals() -> None:
    entries = search(40)
    study = optuna.create_study()
    for row in proposals_of(entries, "finished"):
        m, b, r = (row.values[key] for key in PARAMETERS)
        study.add_trial(
            optuna.trial.create_trial(
                value=100 * (row.objective or 0),
                params={"push margin": m, "pull weight": b, "radius": r},
                distributions={
                    "push margin": FloatDistribution(0, 0.5),
                    "pull weight": FloatDistribution(0.1, 10, log=True),
                    "radius": FloatDistribution(0.1, 1),
                },
            )
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    expected = optuna.importance.get_param_importances(study, evaluator=evaluator)
    assert bars(entries, PARAMETERS) == pytest.approx(expected)


def test_the_key_that_matters_is_found_to_matter() -> None:
    entries = [
        replace(row, objective=row.values["method.view.radius"])
        for row in proposals_of(search(40), "finished")
    ]
    drawn = bars(entries, PARAMETERS)
    assert list(drawn)[-1] == "radius"
    assert drawn["radius"] > 0.9 and sum(drawn.values()) == pytest.approx(1)


def test_importances_are_of_the_keys_that_all_have() -> None:
    assert set(bars(of_kinds(30), KINDS)) == {"kind", "push margin", "pull weight"}


def bars(entries: list[Entry], parameters: dict[str, Distribution]) -> dict[str, float]:
    """Length of each bar, from the bottom."""
    [axes] = importances(entries, parameters, OBJECTIVE).axes
    ordered: list[Any] = sorted(axes.patches, key=lambda bar: bar.get_y())
    names = [label.get_text() for label in axes.get_yticklabels()]
    drawn = dict(zip(names, (bar.get_width() for bar in ordered), strict=True))
    assert list(drawn.values()) == sorted(drawn.values())
    return drawn


def test_a_single_key_and_choices_that_are_no_texts_can_be_drawn() -> None:
    choices = (None, 0.25, 4, True)
    key = "method.push_margin"
    parameters: dict[str, Distribution] = {
        key: Categorical(distribution="categorical", choices=choices)
    }
    entries = search(30, parameters=parameters)
    axes, _ = slices(entries, parameters, OBJECTIVE).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["None", "0.25", "4", "True"]
    for draw in (importances, slices, parallel_coordinates):
        assert_texts_are_legible(draw(entries, parameters, OBJECTIVE))
