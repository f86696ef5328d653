"""The order of trials, who gets a rank, and that both files say the same."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from xlt_ray.names import BASELINE, PAPER
from xlt_ray.report.tables import leaderboard_table
from xlt_ray.search.leaderboard import Entry, baseline, best, ranked, write
from xlt_ray.search.trials import BASELINES, Trial, TrialStatus

VALUES = {"method.push_margin": 0.25, "method.pull_weight": 1}


def entry(label: str, status: Any = "finished", objective: float | None = 0.5) -> Entry:
    finished = status == "finished"
    return Entry(
        trial=Trial.labelled(label, {} if label in BASELINES else VALUES),
        status=TrialStatus(status),
        objective=objective,
        test={"accuracy/en": 0.8, "accuracy/de": 0.7} if finished else {},
        selected={"accuracy/en": 0.85} if finished else {},
        seconds={"total": 12.5},
    )


ENTRIES = [
    entry(BASELINE, objective=0.9),
    entry("a", objective=0.4),
    entry("b", status="failed", objective=0.95),
    entry("c", status="pruned", objective=0.99),
    entry("d", objective=0.7),
    entry(PAPER, objective=0.6),
    entry("e", status="failed", objective=None),
    entry("f", status="interrupted", objective=0.3),
    entry("g", status="pruned", objective=0.2),
]


def test_order_and_ranks_on_a_worked_example() -> None:
    order = [(row.label, row.rank) for row in ranked(ENTRIES)]
    assert order == [
        ("d", 1),
        (PAPER, 2),
        ("a", 3),
        (BASELINE, None),
        ("c", None),
        ("g", None),
        ("f", None),
        ("b", None),
        ("e", None),
    ]
    assert all(row.rank is None for row in ENTRIES)


def test_several_baselines_come_after_the_ranked_and_before_the_pruned() -> None:
    mixed = [
        entry("adv", objective=0.2),
        *ENTRIES,
        entry("rs-rp", status="failed", objective=0.97),
        entry("ear-no-pull", objective=0.99),
        entry("rs-da", objective=0.5),
        entry("h", objective=0.1),
    ]
    order = [(row.label, row.rank) for row in ranked(mixed)]
    assert order == [
        ("d", 1),
        (PAPER, 2),
        ("a", 3),
        ("h", 4),
        ("ear-no-pull", None),
        (BASELINE, None),
        ("rs-da", None),
        ("adv", None),
        ("c", None),
        ("g", None),
        ("f", None),
        ("rs-rp", None),
        ("b", None),
        ("e", None),
    ]
    plain = baseline(ranked(mixed))
    assert plain is not None and plain.label == BASELINE


def test_best_and_baseline() -> None:
    rows = ranked(ENTRIES)
    found, plain = best(rows), baseline(rows)
    assert found is not None and found.label == "d"
    assert plain is not None and plain.label == BASELINE and plain.objective == 0.9
    nothing = ranked([entry("a", "failed"), entry(BASELINE, "failed", 0.9)])
    assert best(nothing) is None and baseline(nothing) is None
    assert all(row.rank is None for row in nothing)


def test_baselines_alone_are_never_the_best() -> None:
    rows = ranked([entry("adv"), entry("rs-da")])
    assert best(rows) is None and baseline(rows) is None
    assert best(ranked([entry(BASELINE)])) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["finished", "pruned", "failed", "interrupted"]),
            st.none() | st.floats(0, 1),
        ),
        max_size=12,
    ),
    st.sets(st.sampled_from(sorted(BASELINES))),
)
def test_ranks_run_from_one_by_falling_objective(trials: list[Any], beside: set[str]) -> None:
    entries = [entry(f"t{i}", status, value) for i, (status, value) in enumerate(trials)]
    entries += [entry(label) for label in sorted(beside)]
    rows = ranked(entries)
    assert sorted(row.label for row in rows) == sorted(row.label for row in entries)
    ranks = [row.rank for row in rows if row.rank is not None]
    finished = [row for row in entries if row.status == "finished" and row.label not in beside]
    assert ranks == list(range(1, len(finished) + 1))
    assert all(row.rank is not None for row in rows[: len(finished)])
    values = [-1 if row.objective is None else row.objective for row in rows[: len(finished)]]
    assert values == sorted(values, reverse=True)


def test_csv_and_json_agree(tmp_path: Path) -> None:
    rows = ranked(ENTRIES)
    paths = write(rows, tmp_path)
    assert [path.name for path in paths] == ["leaderboard.csv", "leaderboard.json"]
    with paths[0].open(newline="", encoding="utf-8") as file:
        as_csv = list(csv.DictReader(file))
    as_json = json.loads(paths[1].read_text(encoding="utf-8"))
    assert len(as_csv) == len(as_json) == len(ENTRIES)
    columns = list(as_csv[0])
    for line, record in zip(as_csv, as_json, strict=True):
        assert set(record) <= set(columns)
        for column in columns:
            value = record.get(column)
            assert line[column] == ("" if value is None else str(value)), column
    assert as_json[0] == {
        "rank": 1,
        "trial": "d",
        "status": "finished",
        "reason": "",
        "method.push_margin": 0.25,
        "method.pull_weight": 1,
        "objective": 0.7,
        "test/accuracy/en": 0.8,
        "test/accuracy/de": 0.7,
        "selected/accuracy/en": 0.85,
        "seconds/total": 12.5,
    }


def test_tables_of_other_names_lie_beside_each_other(tmp_path: Path) -> None:
    board = [path.read_bytes() for path in write(ranked(ENTRIES), tmp_path)]
    others = write([entry("best-seed8")], tmp_path, "runs")
    assert [path.name for path in others] == ["runs.csv", "runs.json"]
    names = ("leaderboard.csv", "leaderboard.json")
    assert [(tmp_path / name).read_bytes() for name in names] == board
    (row,) = json.loads(others[1].read_text(encoding="utf-8"))
    assert row["trial"] == "best-seed8" and row["test/accuracy/de"] == 0.7


def test_table_shows_percent_and_why_a_trial_has_no_rank() -> None:
    entries = [*ENTRIES, entry("adv", "failed"), entry("rs-da")]
    view = leaderboard_table(
        ranked(entries), "dev/accuracy/en", ["method.push_margin"], ["en", "de"]
    )
    out = io.StringIO()
    Console(file=out, width=160).print(view)
    lines = [[cell.strip() for cell in line.split("│")] for line in out.getvalue().splitlines()]
    cells = {line[2]: line for line in lines if len(line) > 2}
    assert cells["d"][1:-1] == ["1", "d", "0.25", "70.0", "", "80.0", "70.0"]
    for label in (BASELINE, "rs-da"):
        assert cells[label][1] == "baseline" and cells[label][3] == "-"
    assert cells["adv"][1] == "failed" and cells["adv"][3] == "-"
    assert cells["c"][1] == "pruned" and cells["e"][1] == "failed" and cells["e"][4] == ""
