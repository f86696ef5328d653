"""The order of trials, who gets a rank, and that both files say the same."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.support.core_toy import Toy
from xlt_ray.config.task import task_of
from xlt_ray.names import BASELINE, OBJECTIVE, PAPER
from xlt_ray.report.tables import leaderboard_table
from xlt_ray.search.leaderboard import (
    Entry,
    baseline,
    best,
    best_searched,
    best_single,
    earlier_baselines,
    ranked,
    read,
    stage_entries,
    write,
)
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.plan import SearchOutline
from xlt_ray.search.trials import BASELINES, Trial, TrialStatus

VALUES = {"method.push_margin": 0.25, "method.pull_weight": 1}


def entry(
    label: str, status: Any = "finished", objective: float | None = 0.5, members: str = ""
) -> Entry:
    finished = status == "finished"
    alone = label in BASELINES or bool(members)
    return Entry(
        trial=Trial.labelled(label, {} if alone else VALUES),
        status=TrialStatus(status),
        objective=objective,
        test={"accuracy/en": 0.8, "accuracy/de": 0.7} if finished else {},
        selected={"accuracy/en": 0.85} if finished else {},
        seconds={"total": 12.5},
        members=tuple(members.split()),
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
        (BASELINE, 1),
        ("d", 2),
        (PAPER, 3),
        ("a", 4),
        ("c", None),
        ("g", None),
        ("f", None),
        ("b", None),
        ("e", None),
    ]
    assert all(row.rank is None for row in ENTRIES)


def test_several_baselines_compete_like_any_trial() -> None:
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
        ("ear-no-pull", 1),
        (BASELINE, 2),
        ("d", 3),
        (PAPER, 4),
        ("rs-da", 5),
        ("a", 6),
        ("adv", 7),
        ("h", 8),
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
    assert found is plain is not None
    assert plain is not None and plain.label == BASELINE and plain.objective == 0.9
    nothing = ranked([entry("a", "failed"), entry(BASELINE, "failed", 0.9)])
    assert best(nothing) is None and baseline(nothing) is None
    assert all(row.rank is None for row in nothing)


def test_of_equal_trials_the_simplest_is_first_in_any_order() -> None:
    simplest_first = [BASELINE, "adv", "01", "soup"]
    for labels in permutations(simplest_first):
        found = ranked([entry(label, members="01 02" * (label == "soup")) for label in labels])
        assert [row.label for row in found] == simplest_first
        assert [row.rank for row in found] == [1, 2, 3, 4]
    higher = ranked([entry(BASELINE), entry("soup-greedy", objective=0.6, members="01 02")])
    assert [row.label for row in higher] == ["soup-greedy", BASELINE]


def label_of(found: Entry | None) -> str | None:
    return None if found is None else found.label


@pytest.mark.parametrize(
    ("labels", "single", "searched"),
    [
        # Labels in the order of their ranks.
        ("soup plain 02 adv 01", "plain", "02"),
        ("plain paper 01", "plain", "paper"),
        ("soup-greedy 01 plain", "01", "01"),
        ("soup adv plain", "adv", "adv"),
        ("config", "config", "config"),
        ("soup", None, None),
        ("", None, None),
    ],
)
def test_best_configurations_beside_the_winner(
    labels: str, single: str | None, searched: str | None
) -> None:
    rows = ranked(
        [
            entry(label, objective=0.9 - place / 10, members="01 02" * label.startswith("soup"))
            for place, label in enumerate(labels.split())
        ]
    )
    assert label_of(best(rows)) == (labels.split()[0] if labels else None)
    assert (label_of(best_single(rows)), label_of(best_searched(rows))) == (single, searched)


def test_a_pruned_trial_is_no_best_configuration() -> None:
    rows = ranked([entry(BASELINE, objective=0.5), entry("01", "pruned", 0.9)])
    assert label_of(best_searched(rows)) == label_of(best(rows)) == BASELINE


def test_the_configuration_that_a_confirmation_chose_comes_before_the_ranks() -> None:
    scores = {"01": 0.9, "02": 0.8, BASELINE: 0.7, "soup": 0.95}
    rows = ranked([entry(label, objective=value) for label, value in scores.items()])
    found = {label: label_of(best_searched(rows, label)) for label in scores}
    assert found == {"01": "01", "02": "02", BASELINE: "01", "soup": "01"}


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
    finished = [row for row in entries if row.status == "finished"]
    assert ranks == list(range(1, len(finished) + 1))
    assert all(row.rank is not None for row in rows[: len(finished)])
    values = [-1 if row.objective is None else row.objective for row in rows[: len(finished)]]
    assert values == sorted(values, reverse=True)
    assert ranked(rows) == rows


@pytest.mark.parametrize("warning", ["", "trials were trained on other data"])
def test_what_was_written_can_be_read(tmp_path: Path, warning: str) -> None:
    rows = ranked([*ENTRIES, entry("soup", objective=0.6, members="a d")])
    _, file = write(rows, tmp_path, warning=warning)
    # Checkpoints are of the machine that wrote it; everything else is there again.
    assert read(file) == [replace(row, checkpoint=None) for row in rows]
    assert read(tmp_path / "absent.json") == []


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
    assert as_json[1] == {
        "rank": 2,
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


def test_files_name_the_members_of_a_soup(tmp_path: Path) -> None:
    rows = ranked([entry("01", objective=0.4), entry("soup", objective=0.6, members="01 paper")])
    as_csv, as_json = write(rows, tmp_path)
    assert [row.get("members") for row in json.loads(as_json.read_text())] == ["01 paper", ""]
    with as_csv.open(newline="", encoding="utf-8") as file:
        assert [row["members"] for row in csv.DictReader(file)] == ["01 paper", ""]
    without = write(ranked(ENTRIES), tmp_path)
    assert not any("members" in path.read_text() for path in without)


def test_tables_of_other_names_lie_beside_each_other(tmp_path: Path) -> None:
    board = [path.read_bytes() for path in write(ranked(ENTRIES), tmp_path)]
    others = write([entry("best-seed8")], tmp_path, "runs")
    assert [path.name for path in others] == ["runs.csv", "runs.json"]
    names = ("leaderboard.csv", "leaderboard.json")
    assert [(tmp_path / name).read_bytes() for name in names] == board
    (row,) = json.loads(others[1].read_text(encoding="utf-8"))
    assert row["trial"] == "best-seed8" and row["test/accuracy/de"] == 0.7


def test_table_shows_percent_and_why_a_trial_has_no_rank() -> None:
    entries = [*ENTRIES, entry("adv", "failed"), entry("soup", objective=0.95, members="a d")]
    view = leaderboard_table(
        ranked(entries), "dev/accuracy/en", ["method.push_margin"], ["en", "de"]
    )
    out = io.StringIO()
    Console(file=out, width=160).print(view)
    lines = [[cell.strip() for cell in line.split("│")] for line in out.getvalue().splitlines()]
    cells = {line[2]: line for line in lines if len(line) > 2}
    assert cells["d"][1:-1] == ["3", "d", "0.25", "70.0", "", "80.0", "70.0"]
    for label, rank in (("soup", "1"), (BASELINE, "2")):
        assert cells[label][1] == rank and cells[label][3] == "-"
    assert cells["adv"][1] == "failed" and cells["adv"][3] == "-"
    assert cells["c"][1] == "pruned" and cells["e"][1] == "failed" and cells["e"][4] == ""


def test_finished_baselines_compete_after_the_comparison_took_their_place(
    tmp_path: Path, toy: Toy
) -> None:
    parameters = {"method.pull_weight": {"distribution": "uniform", "low": 0.0, "high": 1.0}}
    spec = toy.spec(
        {
            "search.parameters": parameters,
            "search.baselines": ["plain", "rs-da", "adv", "ear"],
            "search.comparison_seeds": 3,
        }
    )
    outline = SearchOutline(spec, task_of(spec))
    ledger = Ledger(tmp_path / "trials.jsonl")
    scores = {"paper": 0.4, "plain": 0.5, "rs-da": 0.9, "adv": 0.8, "rs-rp": 0.7, "01": 0.6}
    for label, score in scores.items():
        ledger.start(Trial.labelled(label))
        ledger.evaluated(label, {"evaluations": 1, "step": 1, "steps": 1, OBJECTIVE: score})
        ledger.end(label, TrialStatus.PRUNED if label == "adv" else TrialStatus.FINISHED)
    trials = stage_entries(ledger, outline.fixed_trials())
    trials += earlier_baselines(ledger, outline)
    # `rs-rp` is no baseline of the search any more, and `adv` did not finish.
    found = [one.label for one in ranked(trials)]
    assert found == ["rs-da", "01", "plain", "paper"]
