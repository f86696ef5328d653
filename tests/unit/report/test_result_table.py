"""The table at the end of a search: its order, its width and what it leaves out."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from tests.support.search_results import entry
from xlt_ray.report.result_table import result_table
from xlt_ray.report.tables import print_whole
from xlt_ray.search.leaderboard import Entry, ranked

OBJECTIVE = "dev/likelihood/en_and_virtual"
MANY = ("en", *(f"x{number:02d}_Latn" for number in range(30)))
"""The source and 30 target languages, with codes as SIB-200's."""


def trials(languages: Sequence[str]) -> list[Entry]:
    return ranked(
        [
            entry("01", languages, objective=0.7),
            entry("02", languages, status="pruned", objective=0.6),
            entry("03", languages, objective=0.9),
            entry("04", languages, status="interrupted", objective=None),
            entry("paper", languages, objective=0.5),
            entry("plain", languages, objective=0.55),
            entry("plain-long", languages, objective=0.8),
            entry("soup", languages, objective=0.4),
        ]
    )


def lines(entries: Sequence[Entry], winner: str, languages: Sequence[str], width: int) -> list[str]:
    """The lines that the table prints, without trailing spaces."""
    chosen = next(one for one in entries if one.label == winner)
    view = result_table(entries, chosen, OBJECTIVE, languages, width)
    out = io.StringIO()
    print_whole(view, Console(file=out, width=width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def rows(printed: Sequence[str]) -> dict[str, list[str]]:
    """The cells by trial; the header's are under `trial`."""
    cells = [line.split() for line in printed]
    labels = {"trial", "01", "02", "03", "04", "paper", "plain", "plain-long", "soup"}
    return {row[1]: row for row in cells if len(row) > 1 and row[1] in labels}


@pytest.mark.parametrize("winner", ["03", "soup", "plain"])
def test_winner_soup_paper_and_plain_come_first(winner: str) -> None:
    found = rows(lines(trials(MANY), winner, MANY, 120))
    expected = ["trial", winner]
    # By objective, then the trials without test scores.
    for label in ("soup", "paper", "plain", "03", "plain-long", "01", "02", "04"):
        expected += [label] if label != winner else []
    assert list(found) == expected
    assert [found[label][0] for label in ("03", "plain-long", "01")] == ["1", "2", "3"]
    assert found["02"][0] == "pruned" and found["04"][0] == "interrupted"


@pytest.mark.parametrize("width", [80, 120])
def test_many_languages_fit_the_terminal(width: int) -> None:
    entries = trials(MANY)
    printed = lines(entries, "03", MANY, width)
    assert max(map(len, printed)) <= width
    found = rows(printed)
    header, best = found["trial"], found["03"]
    assert header[:5] == ["rank", "trial", "dev", "zero-shot", "en"]
    shown = header[5:]
    test = next(one.test for one in entries if one.label == "03")
    accuracy = {code: test[f"accuracy/{code}"] for code in MANY[1:]}
    assert best[5:] == [f"{100 * accuracy[code]:.1f}" for code in shown]
    worst_first = sorted(accuracy, key=accuracy.__getitem__)
    low, high = (len(shown) + 1) // 2, len(shown) // 2
    assert shown == worst_first[:low] + worst_first[len(worst_first) - high :]
    # No further language would fit.
    assert max(map(len, printed)) + len("  x00_Latn") > width
    said = " ".join(" ".join(printed).split())
    assert f"{30 - len(shown)} of 30 target languages are left out" in said
    assert f"the winner's {low} lowest and {high} highest" in said
    assert "leaderboard.csv" in said and "report.html" in said


def test_thirteen_languages_fit_in_their_own_order() -> None:
    languages = ("en", *(f"l{letter}" for letter in "abcdefghijkl"))
    printed = lines(trials(languages), "03", languages, 200)
    assert rows(printed)["trial"][4:] == list(languages)
    assert max(map(len, printed)) <= 120 and "left out" not in " ".join(printed)


def test_a_very_narrow_terminal_cuts_no_number() -> None:
    printed = lines(trials(MANY), "03", MANY, 30)
    assert "…" not in "".join(printed)
    assert rows(printed)["trial"] == ["rank", "trial", "dev", "zero-shot", "en"]
    assert all(len(row) == 5 for label, row in rows(printed).items() if label not in ("02", "04"))


def test_without_a_finished_trial_there_is_a_table() -> None:
    (failed,) = ranked([entry("01", ["en", "de"], status="failed", objective=None)])
    view = result_table([failed], None, OBJECTIVE, ["en", "de"])
    assert [list(column.cells) for column in view.columns[:2]] == [["failed"], ["01"]]


def test_a_search_without_trials_has_an_empty_table() -> None:
    view = result_table([], None, OBJECTIVE, MANY[:3])
    assert view.row_count == 0 and len(view.columns) == 7


@pytest.mark.parametrize("width", [80, 120])
def test_macro_f1_of_skewed_classes_takes_the_place_of_languages(width: int) -> None:
    skewed = [
        dataclasses.replace(one, test={**one.test, "macro_f1/zero_shot_mean": 0.123})
        for one in trials(MANY)
    ]
    printed = lines(skewed, "03", MANY, width)
    assert max(map(len, printed)) <= width
    found = rows(printed)
    assert found["trial"][4] == "macro-F1" and found["03"][4] == "12.3"
    without = rows(lines(trials(MANY), "03", MANY, width))
    assert len(found["trial"]) <= len(without["trial"])
