"""Tables of a search on hand-worked numbers."""

from __future__ import annotations

import dataclasses
import io

from rich.console import Console

from tests.support.search_results import LANGUAGES, entry, search
from xlt_ray.report.tables import (
    alignment_table,
    correlation_table,
    leaderboard_table,
    print_whole,
    shows_macro_f1,
)
from xlt_ray.search.leaderboard import Entry


def test_correlations_have_a_sign_and_a_p_value() -> None:
    view = correlation_table({"dev/accuracy/en": (0.5, 0.0321), "dev/accuracy/x": (-1.0, 1.0)}, 7)
    assert "7 runs" in str(view.title)
    assert [list(column.cells) for column in view.columns] == [
        ["dev/accuracy/en", "dev/accuracy/x"],
        ["+0.50", "-1.00"],
        ["0.032", "1.000"],
    ]


def test_a_model_without_alignment_has_no_row() -> None:
    metrics = {
        "alignment/retrieval/mean": 0.25,
        "alignment/margin/mean": 0.1234,
        "alignment/embedding/retrieval/mean": 0.5,
        "alignment/pulled/retrieval/mean": 0.75,
        "alignment/retrieval/de": 1.0,
    }
    view = alignment_table({"pretrained": metrics, "best": {}}, ["de"])
    assert [list(column.cells) for column in view.columns] == [
        *(["pretrained"], ["25.0"], ["0.123"], ["50.0"], ["75.0"], ["100.0"]),
    ]


def test_the_chosen_trial_is_bold_whatever_its_rank() -> None:
    entries = search(4)
    for chosen in (entries[0].label, entries[1].label):
        view = leaderboard_table(entries, "dev/accuracy/en", [], LANGUAGES, chosen)
        bold = [e.label for e, row in zip(entries, view.rows, strict=True) if row.style == "bold"]
        assert bold == [chosen]


def test_a_narrow_console_cuts_no_number() -> None:
    view = leaderboard_table(search(4), "dev/accuracy/en", ["method.push_margin"], LANGUAGES)
    out = io.StringIO()
    print_whole(view, Console(file=out, width=20))
    assert "…" not in out.getvalue()
    assert all(f" {code} " in out.getvalue() for code in LANGUAGES)


def test_macro_f1_has_a_column_where_it_differs_from_accuracy() -> None:
    def with_f1(difference: float) -> list[Entry]:
        found = entry("01", ("en", "de"), objective=0.5)
        mean = found.test["accuracy/zero_shot_mean"]
        test = {**found.test, "macro_f1/zero_shot_mean": mean - difference}
        return [dataclasses.replace(found, test=test), entry("02", ("en", "de"), status="pruned")]

    def columns(entries: list[Entry]) -> dict[str, list[str]]:
        view = leaderboard_table(entries, "dev/accuracy/en", [], ("en", "de"))
        return {str(column.header): list(map(str, column.cells)) for column in view.columns}

    assert not shows_macro_f1(with_f1(0.009)) and "macro-F1" not in columns(with_f1(0.009))
    skewed = with_f1(0.2)
    assert shows_macro_f1(skewed)
    assert columns(skewed)["macro-F1"] == [
        f"{100 * skewed[0].test['macro_f1/zero_shot_mean']:.1f}",
        "",
    ]
