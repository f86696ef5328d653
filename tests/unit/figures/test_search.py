"""Pictures of a search show what its trials did."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from tests.support.drawn import assert_texts_are_legible
from tests.support.search_results import (
    ALL_BASELINES,
    FURTHER,
    KINDS,
    LANGUAGES,
    METHODS,
    OBJECTIVE,
    PARAMETERS,
    curves,
    entry,
    named,
    of_kinds,
    of_methods,
    proposals_of,
    search,
)
from xlt_ray.config.space import Distribution
from xlt_ray.evaluation.scores import objectives
from xlt_ray.figures.common import NothingToDraw
from xlt_ray.figures.optuna import history, importances, parallel_coordinates, slices
from xlt_ray.figures.search import MOST_ROWS, accuracy_of_trials, landscape, learning_curves
from xlt_ray.search.leaderboard import ranked


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


def legend(figure: Figure) -> list[str]:
    [found] = figure.legends
    return [text.get_text() for text in found.get_texts()]


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
    objective = max(objectives("en", target_labels=True), key=len)
    for entries, parameters in ((of_kinds(20), KINDS), (of_methods(20), METHODS)):
        assert_texts_are_legible(history(entries, objective))
        assert_texts_are_legible(learning_curves(curves(entries), entries, objective))
        assert_texts_are_legible(accuracy_of_trials(entries, LANGUAGES, "en"))
        for draw in (importances, slices, parallel_coordinates, landscape):
            assert_texts_are_legible(draw(entries, parameters, objective))


@pytest.mark.parametrize("method", ["plain", "rs-da", "rs-rp", "ear"])
def test_a_search_over_methods_that_proposed_one_method_can_be_drawn(method: str) -> None:
    rows = [row for row in of_methods(30) if row.values.get("method.name") in (method, None)]
    entries = ranked(rows)
    for draw in (slices, parallel_coordinates):
        assert_texts_are_legible(draw(entries, METHODS, OBJECTIVE))
    if method == "plain":
        with pytest.raises(NothingToDraw, match="do not differ in a key"):
            importances(entries, METHODS, OBJECTIVE)
    else:
        assert_texts_are_legible(importances(entries, METHODS, OBJECTIVE))
    if method == "ear":
        assert_texts_are_legible(landscape(entries, METHODS, OBJECTIVE))
    else:
        with pytest.raises(NothingToDraw, match="no proposal has two numeric keys"):
            landscape(entries, METHODS, OBJECTIVE)


def test_landscape_has_the_proposals_that_have_both_keys() -> None:
    entries = of_methods(30)
    figure = landscape(entries, METHODS, OBJECTIVE)
    numeric = [key for key in METHODS if key != "method.name"][:4]
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    scored = proposals_of(entries, "finished", "pruned")
    expected = {
        (named(x), named(y)): sum(x in row.values and y in row.values for row in scored)
        for x, y in itertools.combinations(numeric, 2)
    }
    drawn = {
        (axes.get_xlabel(), axes.get_ylabel()): sum(
            len(np.asarray(group.get_offsets())) for group in axes.collections
        )
        for axes in panels
    }
    # No method has both radii, or a push and noise.
    assert drawn == {pair: count for pair, count in expected.items() if count}
    assert len(drawn) == 3 and len(expected) == 6


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


def test_a_baseline_that_wins_is_the_bold_curve() -> None:
    found = [entry("plain", LANGUAGES[:2], objective=0.9), entry("01", LANGUAGES[:2])]
    entries = ranked(found)
    figure = learning_curves(curves(entries), entries, OBJECTIVE)
    lines = {str(line.get_gid()): line for line in figure.axes[0].lines}
    assert lines["plain"].get_linewidth() > lines["01"].get_linewidth()
    assert set(legend(figure)) == {"best (plain)", "finished"}


def test_the_best_single_trial_is_the_bold_curve_where_a_soup_wins() -> None:
    soup = replace(entry("soup", LANGUAGES[:2], objective=0.9), members=("01", "02"))
    single = [
        entry("01", LANGUAGES[:2], objective=0.7),
        entry("02", LANGUAGES[:2], objective=0.8),
    ]
    entries = ranked([soup, *single])
    figure = learning_curves(curves(single), entries, OBJECTIVE)
    lines = {str(line.get_gid()): line for line in figure.axes[0].lines}
    assert lines["02"].get_linewidth() > lines["01"].get_linewidth()
    assert set(legend(figure)) == {"best (02)", "finished"}


def test_landscape_colours_every_proposal_by_its_objective() -> None:
    entries = search(20, parameters=FURTHER)
    figure = landscape(entries, FURTHER, OBJECTIVE)
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    pairs = [(axes.get_xlabel(), axes.get_ylabel()) for axes in panels]
    assert len(set(pairs)) == 6 and ("push margin", "pull weight") in pairs
    scored = proposals_of(entries, "finished", "pruned")
    drawn = panels[0].collections
    points = np.concatenate([np.asarray(group.get_offsets()) for group in drawn])
    colours = np.concatenate([np.asarray(group.get_array()) for group in drawn])
    found = sorted((c, x, y) for c, (x, y) in zip(colours, points, strict=True))
    given = sorted((100 * (row.objective or 0), *list(row.values.values())[:2]) for row in scored)
    assert np.array(found) == pytest.approx(np.array(given, dtype=float))
    scales = {(axes.get_xlabel(), axes.get_xscale()) for axes in panels}
    assert ("pull weight", "log") in scales and ("push margin", "linear") in scales


def test_heat_map_has_the_finished_trials_in_rank_order() -> None:
    codes = ("de", "en", "sw")
    entries = search(7, ("en", "de", "sw"), baselines=("plain", "adv"))
    axes = accuracy_of_trials(entries, codes, "en").axes[0]
    finished = [row for row in entries if row.status == "finished"]
    [image] = axes.images
    columns = ("en", "de", "sw", "zero_shot_mean")
    expected = [[100 * row.test[f"accuracy/{code}"] for code in columns] for row in finished]
    assert np.asarray(image.get_array()) == pytest.approx(np.array(expected))
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert [name.split()[:2] for name in names] == [
        [f"{rank}.", row.label] for rank, row in enumerate(finished, 1)
    ]
    marked = {name.split()[1] for name in names if name.endswith("(baseline)")}
    assert marked == {"plain", "adv"}
    assert [name.split() for name in names if "paper" in name] == [
        [f"{row.rank}.", "paper"] for row in finished if row.label == "paper"
    ]
    said = {text.get_position(): text.get_text() for text in axes.texts}
    assert said[0, 0] == f"{expected[0][0]:.1f}" and len(said) == 4 * len(finished)


def test_heat_map_of_many_trials_has_the_first() -> None:
    trials = [entry(f"{n:03d}", ["en", "de"], objective=n / 100) for n in range(60)]
    axes = accuracy_of_trials(ranked(trials), ["en", "de"], "en").axes[0]
    assert len(axes.get_yticklabels()) == MOST_ROWS
    assert axes.get_yticklabels()[0].get_text().split()[1] == "059"
    assert axes.get_title() == "the first 40 of 60 finished trials"
    trials.append(entry("plain", ["en", "de"], objective=0.0))
    axes = accuracy_of_trials(ranked(trials), ["en", "de"], "en").axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == MOST_ROWS + 1 and names[-1] == "60.  plain (baseline)"
    assert axes.get_title() == "the first 40 of 61 finished trials and the baselines"


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
