"""What is drawn of a search is what its trials did."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.drawn import assert_texts_are_legible
from tests.search_results import (
    FURTHER,
    LANGUAGES,
    OBJECTIVE,
    PARAMETERS,
    curves,
    entry,
    search,
)
from xlt_ray.leaderboard import Entry, ranked
from xlt_ray.search_pictures import (
    MOST_ROWS,
    NothingToDraw,
    accuracy_of_trials,
    history,
    importance_shares,
    importances,
    landscape,
    learning_curves,
    parallel_coordinates,
    slices,
)
from xlt_ray.spec import Distribution, SearchSpec
from xlt_ray.study import Study

ALL_BASELINES = ("plain", "rs-da", "rs-rp", "adv", "ear-no-push", "ear-no-pull", "ear-no-robust")


def every_picture(
    trials: int, languages: tuple[str, ...], parameters: dict[str, Distribution]
) -> list[Figure]:
    entries = search(trials, languages, parameters, ALL_BASELINES)
    return [
        history(entries, OBJECTIVE),
        learning_curves(curves(entries), entries, OBJECTIVE),
        accuracy_of_trials(entries, languages, "en"),
        importances({key: 0.5 / (n + 1) for n, key in enumerate(parameters)}),
        slices(entries, parameters, OBJECTIVE),
        parallel_coordinates(entries, parameters, OBJECTIVE),
        landscape(entries, parameters, OBJECTIVE),
    ]


def legend(figure: Figure) -> list[str]:
    [found] = figure.legends
    return [text.get_text() for text in found.get_texts()]


def lines(figure: Figure, panel: int = 0) -> dict[str, np.ndarray]:
    """The points (points, 2) of each line, by what the legend calls it."""
    drawn = figure.axes[panel].lines
    return {
        name: np.asarray(line.get_xydata())
        for name, line in zip(legend(figure), drawn, strict=True)
    }


def proposals(entries: list[Entry], *statuses: str) -> list[Entry]:
    found = [row for row in entries if row.label.isdigit() and row.status in statuses]
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


def test_history_shows_every_trial_and_the_best_finished_one_so_far() -> None:
    entries = search(12)
    figure = history(entries, OBJECTIVE)
    drawn = lines(figure)
    assert list(drawn) == ["finished", "best so far", "pruned", "failed", "plain"]
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["paper", *(f"{number:02d}" for number in range(1, 13))]
    objective = {row.label: row.objective for row in entries}
    for status in ("finished", "pruned"):
        given = [row.label for row in entries if row.status == status and row.label != "plain"]
        shown = {ticks[int(x)]: y for x, y in drawn[status]}
        assert shown == {label: pytest.approx(100 * objective[label]) for label in given}
    assert [ticks[int(x)] for x, _ in drawn["failed"]] == ["05"]
    best = 0.0
    for label, (_, y) in zip(ticks, drawn["best so far"], strict=True):
        if label in {ticks[int(x)] for x, _ in drawn["finished"]}:
            best = max(best, 100 * (objective[label] or 0))
        assert y == pytest.approx(best)
    assert drawn["plain"][:, 1] == pytest.approx([83, 83])


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


def test_slices_show_each_value_at_its_place() -> None:
    entries = search(20, parameters=FURTHER)
    figure = slices(entries, FURTHER, OBJECTIVE)
    names = [axes.get_xlabel() for axes in figure.axes]
    assert names == ["push margin", "pull weight", "radius", "pull layer", "name"]
    methods = ("ear", "ear-no-push", "ear-no-pull")
    # What a place between 0 and 1 stands for, written down anew.
    values: dict[str, Any] = {
        "method.push_margin": lambda x: 0.5 * x,
        "method.pull_weight": lambda x: 10 ** (2 * x - 1),
        "method.view.radius": lambda x: 0.1 + 0.9 * x,
        "method.pull_layer": lambda x: 11 * x,
        "method.name": lambda x: methods[round(2 * x)],
    }
    scored = proposals(entries, "finished", "pruned")
    for panel, (key, value) in enumerate(values.items()):
        drawn = lines(figure, panel)
        assert len(drawn["pruned"]) == 6
        shown = sorted((y, value(x)) for group in drawn.values() for x, y in group)
        given = sorted((100 * (row.objective or 0), row.values[key]) for row in scored)
        for (y, drawn_value), (objective, given_value) in zip(shown, given, strict=True):
            assert y == pytest.approx(objective)
            same = given_value if isinstance(given_value, str) else pytest.approx(given_value)
            assert drawn_value == same


def test_a_line_goes_through_a_proposals_values_to_its_objective() -> None:
    entries = search(20)
    [axes] = parallel_coordinates(entries, PARAMETERS, OBJECTIVE).axes
    drawn = {str(line.get_gid()): line for line in axes.lines if len(line.get_xdata()) == 4}
    scored = proposals(entries, "finished", "pruned")
    assert sorted(drawn) == [row.label for row in scored]
    for row in scored:
        places = np.asarray(drawn[row.label].get_ydata(), dtype=float)
        values = row.values
        assert places[:3] == pytest.approx(
            [
                values["method.push_margin"] / 0.5,
                (math.log10(values["method.pull_weight"]) + 1) / 2,
                (values["method.view.radius"] - 0.1) / 0.9,
            ]
        )
    reached = sorted(scored, key=lambda row: float(drawn[row.label].get_ydata()[-1]))
    assert reached == sorted(scored, key=lambda row: row.objective or 0)
    widths = {label: line.get_linewidth() for label, line in drawn.items()}
    assert max(widths, key=lambda label: widths[label]) == next(
        row.label for row in entries if row.rank == 1
    )


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
    found = sorted(
        (c, 0.5 * x, 10 ** (2 * y - 1)) for c, (x, y) in zip(colours, points, strict=True)
    )
    given = sorted((100 * (row.objective or 0), *list(row.values.values())[:2]) for row in scored)
    assert np.array(found) == pytest.approx(np.array(given, dtype=float))


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


def study(file: Path, objectives: list[Any]) -> Path:
    """A study whose proposals end as told: a number, or a function of the values."""
    spec = SearchSpec.model_validate(
        {
            "name": "x",
            "task": "demo",
            "model": "m",
            "search": {
                "sampler": {"name": "random"},
                "parameters": {
                    key: given.model_dump(mode="json") for key, given in PARAMETERS.items()
                },
            },
        }
    )
    kept = Study(spec, file)
    for objective in objectives:
        label, values = kept.propose()
        kept.end(label, objective(values) if callable(objective) else objective)
    return file


def test_the_key_that_matters_is_found_to_matter(tmp_path: Path) -> None:
    file = study(tmp_path / "study.log", [lambda values: values["method.view.radius"]] * 40)
    before = file.read_bytes()
    shares = importance_shares(file)
    assert file.read_bytes() == before
    assert sorted(shares) == sorted(PARAMETERS)
    assert shares["method.view.radius"] > 0.9 and sum(shares.values()) == pytest.approx(1)
    [axes] = importances(shares).axes
    top = max(axes.patches, key=lambda bar: bar.get_y())  # type: ignore[attr-defined]
    assert top.get_width() == pytest.approx(100 * shares["method.view.radius"])  # type: ignore[attr-defined]
    assert axes.get_yticklabels()[-1].get_text() == "radius"


@pytest.mark.parametrize("objectives", [[], [0.5], [0.5, None], [0.5, 0.5, 0.5]])
def test_too_few_proposals_have_no_importances(tmp_path: Path, objectives: list[Any]) -> None:
    with pytest.raises(NothingToDraw):
        importance_shares(study(tmp_path / "study.log", objectives))


def test_nothing_is_drawn_of_nothing() -> None:
    one = search(1)
    for draw in (slices, parallel_coordinates, landscape):
        with pytest.raises(NothingToDraw, match="fewer than two proposals"):
            draw(one, PARAMETERS, OBJECTIVE)
    key = "method.push_margin"
    with pytest.raises(NothingToDraw, match="numeric keys"):
        landscape(search(5), {key: PARAMETERS[key]}, OBJECTIVE)
    with pytest.raises(NothingToDraw, match="nothing is searched"):
        slices(search(5), {}, OBJECTIVE)
    failed = [entry("01", ["en", "de"], "failed", None)]
    with pytest.raises(NothingToDraw):
        history(failed, OBJECTIVE)
    with pytest.raises(NothingToDraw):
        learning_curves({"01": []}, failed, OBJECTIVE)
    with pytest.raises(NothingToDraw):
        accuracy_of_trials(failed, ["en", "de"], "en")
    with pytest.raises(NothingToDraw):
        importance_shares(Path("nowhere/study.log"))


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


def test_pyplot_is_never_imported() -> None:
    script = """
import sys
from tests import test_search_pictures as pictures
pictures.every_picture(3, pictures.LANGUAGES[:3], pictures.PARAMETERS)
assert "matplotlib.figure" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    assert done.returncode == 0, done.stderr
