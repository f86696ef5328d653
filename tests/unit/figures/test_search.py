"""What is drawn of a search is what its trials did."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
import optuna
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from optuna.distributions import FloatDistribution

from tests.support.drawn import assert_texts_are_legible
from tests.support.search_results import (
    FURTHER,
    LANGUAGES,
    OBJECTIVE,
    PARAMETERS,
    curves,
    entry,
    search,
)
from xlt_ray.config.method import MethodSpec, ViewSpec
from xlt_ray.config.space import Categorical, Distribution, Uniform
from xlt_ray.config.spec import TrainingSpec
from xlt_ray.figures.optuna import history, importances, parallel_coordinates, slices
from xlt_ray.figures.search import MOST_ROWS, accuracy_of_trials, landscape, learning_curves
from xlt_ray.figures.trials import NothingToDraw
from xlt_ray.search.leaderboard import Entry, ranked

KINDS: dict[str, Distribution] = PARAMETERS | {
    "method.view.kind": Categorical(
        distribution="categorical", choices=("synonym", "random", "adversarial")
    ),
    "method.view.noise_radius": Uniform(distribution="uniform", low=0.5, high=2.0),
}
"""Two radii, of which a proposal has the one or the other."""
ALL_BASELINES = ("plain", "rs-da", "rs-rp", "adv", "ear-no-push", "ear-no-pull", "ear-no-robust")


def every_picture(
    trials: int, languages: tuple[str, ...], parameters: dict[str, Distribution]
) -> list[Figure]:
    entries = search(trials, languages, parameters, ALL_BASELINES)
    return [
        history(entries, OBJECTIVE),
        learning_curves(curves(entries), entries, OBJECTIVE),
        accuracy_of_trials(entries, languages, "en"),
        importances(entries, parameters, OBJECTIVE),
        slices(entries, parameters, OBJECTIVE),
        parallel_coordinates(entries, parameters, OBJECTIVE),
        landscape(entries, parameters, OBJECTIVE),
    ]


def of_kinds(trials: int) -> list[Entry]:
    """A ranked search over :data:`KINDS`."""
    entries = search(trials, parameters=KINDS)
    for row in entries:
        if row.trial.proposed:
            synonyms = row.values["method.view.kind"] == "synonym"
            lacking = "method.view.noise_radius" if synonyms else "method.view.radius"
            assert isinstance(row.values, dict)
            del row.values[lacking]
    return entries


def legend(figure: Figure) -> list[str]:
    [found] = figure.legends
    return [text.get_text() for text in found.get_texts()]


def named(key: str) -> str:
    return key.split(".")[-1].replace("_", " ")


def proposals(entries: list[Entry], *statuses: str) -> list[Entry]:
    found = [row for row in entries if row.trial.proposed and row.status in statuses]
    return sorted(found, key=lambda row: row.label)


@pytest.mark.parametrize(
    ("trials", "languages", "parameters"),
    [(2, 3, PARAMETERS), (30, 15, FURTHER), (12, 2, PARAMETERS)],
)
def test_no_text_is_cut_off_or_covers_another(
    trials: int, languages: int, parameters: dict[str, Distribution]
) -> None:
    for figure in every_picture(trials, LANGUAGES[:languages], parameters):
        assert_texts_are_legible(figure)


def test_keys_that_only_some_proposals_have_leave_texts_legible() -> None:
    entries, objective = of_kinds(20), "dev/accuracy/zero_shot_mean"
    assert_texts_are_legible(history(entries, objective))
    for draw in (importances, slices, parallel_coordinates, landscape):
        assert_texts_are_legible(draw(entries, KINDS, objective))


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


def test_curves_are_those_of_every_trial_and_the_best_stands_out() -> None:
    entries = search(9, baselines=("plain", "adv"))
    given = curves(entries)
    figure = learning_curves(given, entries, OBJECTIVE)
    drawn = {str(line.get_gid()): line for line in figure.axes[0].lines}
    assert drawn.keys() == given.keys()
    for label, line in drawn.items():
        steps, values = np.array(given[label]).T
        assert np.asarray(line.get_xydata()) == pytest.approx(
            np.column_stack([steps, 100 * values])
        )
    width = {label: line.get_linewidth() for label, line in drawn.items()}
    [winner] = [row.label for row in entries if row.rank == 1]
    status = {row.label: row.status for row in entries}
    assert [label for label in width if width[label] == max(width.values())] == [winner]
    thinnest = {label for label in width if width[label] == min(width.values())}
    assert thinnest == {label for label in width if status[label] == "pruned"}
    dashed = {label for label, line in drawn.items() if line.get_linestyle() != "-"}
    assert dashed == {"plain", "adv"}
    assert set(legend(figure)) == {f"best ({winner})", "finished", "plain", "adv", "pruned"}


def test_slices_show_the_value_and_objective_of_each_finished_proposal() -> None:
    entries = of_kinds(30)
    *panels, bar = slices(entries, KINDS, OBJECTIVE).axes
    by_name = {axes.get_xlabel(): axes for axes in panels}
    assert list(by_name) == ["kind", "noise radius", "pull weight", "push margin", "radius"]
    finished = proposals(entries, "finished")
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
    finished = proposals(entries, "finished")
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


def test_landscape_colours_every_proposal_by_its_objective() -> None:
    entries = search(20, parameters=FURTHER)
    figure = landscape(entries, FURTHER, OBJECTIVE)
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    pairs = [(axes.get_xlabel(), axes.get_ylabel()) for axes in panels]
    assert len(set(pairs)) == 6 and ("push margin", "pull weight") in pairs
    scored = proposals(entries, "finished", "pruned")
    drawn = panels[0].collections
    points = np.concatenate([np.asarray(group.get_offsets()) for group in drawn])
    colours = np.concatenate([np.asarray(group.get_array()) for group in drawn])
    found = sorted((c, x, y) for c, (x, y) in zip(colours, points, strict=True))
    given = sorted((100 * (row.objective or 0), *list(row.values.values())[:2]) for row in scored)
    assert np.array(found) == pytest.approx(np.array(given, dtype=float))
    scales = {(axes.get_xlabel(), axes.get_xscale()) for axes in panels}
    assert ("pull weight", "log") in scales and ("push margin", "linear") in scales


def test_heat_map_has_the_finished_trials_in_rank_order_and_then_the_baselines() -> None:
    codes = ("de", "en", "sw")
    entries = search(7, ("en", "de", "sw"), baselines=("plain", "adv"))
    axes = accuracy_of_trials(entries, codes, "en").axes[0]
    finished = [row for row in entries if row.status == "finished"]
    [image] = axes.images
    columns = ("en", "de", "sw", "zero_shot_mean")
    expected = [[100 * row.test[f"accuracy/{code}"] for code in columns] for row in finished]
    assert np.asarray(image.get_array()) == pytest.approx(np.array(expected))
    names = [label.get_text() for label in axes.get_yticklabels()]
    ranks = [row for row in finished if row.rank is not None]
    assert [name.split()[:2] for name in names[: len(ranks)]] == [
        [f"{row.rank}.", row.label] for row in ranks
    ]
    assert set(names[len(ranks) :]) == {"plain (baseline)", "adv (baseline)"}
    assert [name.split() for name in names if "paper" in name] == [
        [f"{row.rank}.", "paper"] for row in ranks if row.label == "paper"
    ]
    said = {text.get_position(): text.get_text() for text in axes.texts}
    assert said[0, 0] == f"{expected[0][0]:.1f}" and len(said) == 4 * len(finished)


def test_heat_map_of_many_trials_has_the_first() -> None:
    trials = [entry(f"{n:03d}", ["en", "de"], objective=n / 100) for n in range(60)]
    axes = accuracy_of_trials(ranked(trials), ["en", "de"], "en").axes[0]
    assert len(axes.get_yticklabels()) == MOST_ROWS
    assert axes.get_yticklabels()[0].get_text().split()[1] == "059"
    assert axes.get_title() == "the first 40 of 60 finished trials"


def test_importances_are_those_of_the_finished_proposals() -> None:
    entries = search(40)
    study = optuna.create_study()
    for row in proposals(entries, "finished"):
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
        for row in proposals(search(40), "finished")
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


def test_no_two_keys_have_one_short_name() -> None:
    fields = [*MethodSpec.model_fields, *ViewSpec.model_fields, *TrainingSpec.model_fields]
    assert len(fields) == len(set(fields))


def test_nothing_is_drawn_of_nothing() -> None:
    one = search(1)
    for draw in (importances, slices, parallel_coordinates, landscape):
        with pytest.raises(NothingToDraw, match="fewer than two proposals"):
            draw(one, PARAMETERS, OBJECTIVE)
    key = "method.push_margin"
    with pytest.raises(NothingToDraw, match="numeric keys"):
        landscape(search(5), {key: PARAMETERS[key]}, OBJECTIVE)
    pruned = [row for row in search(12) if row.status == "pruned" or row.label == "01"]
    for draw in (importances, slices, parallel_coordinates):
        with pytest.raises(NothingToDraw, match="nothing is searched"):
            draw(search(5), {}, OBJECTIVE)
        with pytest.raises(NothingToDraw, match="fewer than two finished"):
            draw(pruned, PARAMETERS, OBJECTIVE)
    failed = [entry("01", ["en", "de"], "failed", None)]
    with pytest.raises(NothingToDraw):
        history(failed, OBJECTIVE)
    with pytest.raises(NothingToDraw):
        learning_curves({"01": []}, failed, OBJECTIVE)
    with pytest.raises(NothingToDraw):
        accuracy_of_trials(failed, ["en", "de"], "en")
    apart = [
        entry(f"{n:02d}", LANGUAGES[:2], objective=n / 10, values={key: 0.25})
        for n, key in enumerate(PARAMETERS, 1)
    ]
    with pytest.raises(NothingToDraw, match="no key in common"):
        importances(apart, PARAMETERS, OBJECTIVE)


def test_proposals_that_all_ended_alike_can_be_drawn() -> None:
    same = ranked(
        [
            entry(f"{n:02d}", LANGUAGES[:2], values=dict.fromkeys(PARAMETERS, 0.25 + n / 100))
            for n in range(3)
        ]
    )
    for figure in (
        history(same, OBJECTIVE),
        slices(same, PARAMETERS, OBJECTIVE),
        parallel_coordinates(same, PARAMETERS, OBJECTIVE),
        landscape(same, PARAMETERS, OBJECTIVE),
    ):
        assert_texts_are_legible(figure)
    with pytest.raises(NothingToDraw, match="ended alike"):
        importances(same, PARAMETERS, OBJECTIVE)


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


@pytest.fixture
def a_persons_pyplot() -> Iterator[None]:
    """A figure and settings of a person's own; SVG stands for a screen."""
    before = matplotlib.get_backend()
    pyplot.switch_backend("svg")
    with pyplot.style.context("dark_background"):
        yield
    pyplot.close("all")
    pyplot.switch_backend(before)


def test_pyplot_is_left_as_it_was_and_no_thread_of_its_own_is_needed(
    a_persons_pyplot: None,
) -> None:
    own = pyplot.figure()
    settings = dict(matplotlib.rcParams)
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=1) as thread:
        warnings.simplefilter("error")
        thread.submit(every_picture, 3, LANGUAGES[:3], PARAMETERS).result()
    assert pyplot.get_fignums() == [own.number] and pyplot.gcf() is own
    assert dict(matplotlib.rcParams) == settings and matplotlib.get_backend() == "svg"
