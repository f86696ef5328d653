"""Searches of their own: a trial that fails, two nodes, soups and confirmation."""

from __future__ import annotations

import csv
import html
import json
from pathlib import Path

import pytest

from scripts.chaos import Nodes
from tests.support.recorded import leaderboard, runs_of
from tests.support.searching import launch, write_search


def test_a_target_ends_the_search_cleanly_and_trials_that_fail_later_cost_nothing_else(
    tmp_path: Path,
) -> None:
    """Any finished trial reaches a target of 0, so one runs, on two workers.

    The resumed search is forced onto changed data, which table and model card tell. All its trials
    get a learning rate at which the loss overflows.
    """
    search = write_search(
        tmp_path,
        training={"epochs": 1, "evaluations_per_epoch": 1},
        search={
            "num_trials": 2,
            "max_concurrent": 1,
            "max_failures": 0,
            "baselines": [],
            "target": 0.0,
            "parameters": {
                "training.learning_rate": {"distribution": "categorical", "choices": [1e30]}
            },
        },
        resources={"workers_per_trial": 2, "cpus_per_worker": 0.5},
        assessment={"alignment_rows": 0},
    )
    first = launch("--search", str(search), "--time-budget", "5h", folder=tmp_path)
    assert first.code == 0, first.output + first.errors
    assert "trial paper has 0." in first.output and "the target is 0; 1 of 2" in first.output
    assert "To go on" not in first.output
    (state,) = (tmp_path / "runs").glob("tiny-*")
    assert list(leaderboard(state)) == ["paper"] and (state / "best-model").is_dir()

    more = ("--num-trials", "3", "--set", "search.target=null", "--time-budget", "6h")
    changed = tmp_path / "data" / "dev-de.tsv"
    first_row = changed.read_text(encoding="utf-8").splitlines(keepends=True)[0]
    with changed.open("a", encoding="utf-8") as file:
        file.write(first_row)
    refused = launch("--resume", str(state), *more, folder=tmp_path)
    assert refused.code == 2 and "dev-de.tsv (dev, de)" in refused.errors
    second = launch("--resume", str(state), *more, "--force", folder=tmp_path)
    assert second.code == 1, second.output + second.errors
    assert "1 ended before" in second.output
    assert "FAILED" in second.output
    assert "is nan" in second.output or "is inf" in second.output
    rows = leaderboard(state)
    states = {label: row["status"] for label, row in rows.items()}
    assert states == {"paper": "finished", "01": "failed", "02": "failed"}
    assert rows["paper"]["rank"] == 1
    _, trials = runs_of(tmp_path, "tiny")
    assert {label: trials[label].info.status for label in states} == {
        label: status.upper() for label, status in states.items()
    }
    note = "trials were trained on different data: dev-de.tsv (dev, de) changed between them"
    assert all(row["warning"].startswith(note) for row in rows.values())
    with (state / "leaderboard.csv").open(encoding="utf-8", newline="") as table:
        assert all(row["warning"].startswith(note) for row in csv.DictReader(table))
    card = (state / "best-model" / "README.md").read_text(encoding="utf-8")
    assert f"Warning: {note}" in card


@pytest.mark.slow
def test_workers_on_two_nodes_train_what_they_train_on_one(tmp_path: Path) -> None:
    scores = {}
    for place in ("nodes", "machine"):
        folder = tmp_path / place
        folder.mkdir()
        search = write_search(
            folder,
            search={"num_trials": 1, "baselines": []},
            assessment={"alignment_rows": 0},
            resources={"workers_per_trial": 2, "cpus_per_worker": 1},
        )
        arguments = ["--search", str(search)]
        cluster = Nodes() if place == "nodes" else None
        try:
            # A node has one core there, so that a trial's workers are on two.
            run = launch(
                *arguments, *(["--address", cluster.address] if cluster else []), folder=folder
            )
        finally:
            if cluster:
                cluster.stop()
        assert run.code == 0, run.output + run.errors
        (state,) = (folder / "runs").glob("tiny-*")
        scores[place] = {
            key: value
            for key, value in leaderboard(state)["paper"].items()
            if not key.startswith("seconds/")
        }
    assert scores["nodes"] == scores["machine"]


def test_soups_compete_and_the_winner_is_confirmed_with_fresh_seeds(tmp_path: Path) -> None:
    search = write_search(
        tmp_path,
        training={"average_last": 2, "learning_rate": 5e-3},
        data={"dev_languages": "source"},
        search={
            "baselines": ["plain"],
            "objective": "dev/likelihood/en_and_virtual",
            "soups": True,
            "confirmation": {"top": 1, "seeds": 1},
        },
        assessment={"alignment_rows": 0},
    )
    run = launch("--search", str(search), folder=tmp_path)
    assert run.code == 0, run.output + run.errors
    (state,) = (tmp_path / "runs").glob("tiny-*")
    rows = leaderboard(state)
    assert set(rows["soup"]["members"].split()) == {"paper", "01"}
    assert {row["status"] for row in rows.values()} == {"finished"}
    ranks = sorted(rows.values(), key=lambda row: row["rank"])
    assert [row["rank"] for row in ranks] == list(range(1, len(rows) + 1))
    assert [row["objective"] for row in ranks] == sorted(
        (row["objective"] for row in rows.values()), reverse=True
    )

    confirmed = json.loads((state / "confirmation.json").read_text(encoding="utf-8"))
    assert confirmed["seeds"] == [10_008]
    anew = {row["label"]: row["objectives"][0] for row in confirmed["candidates"]}
    # With one seed the highest wins; plain is among the candidates.
    assert anew[confirmed["winner"]] == max(anew.values()) and "plain" in anew
    verdict = json.loads((state / "verdict.json").read_text(encoding="utf-8"))
    assert verdict["winner"] == confirmed["winner"] and verdict["sentence"] in run.output
    page = html.unescape((state / "report.html").read_text(encoding="utf-8"))
    assert verdict["sentence"] in page and "Confirmation with 1 fresh seed(s)" in page

    _, trials = runs_of(tmp_path, "tiny")
    soup = trials["soup"].data
    assert soup.tags["members"].split() == rows["soup"]["members"].split()
    assert soup.metrics["test/accuracy/de"] == pytest.approx(rows["soup"]["test/accuracy/de"])
    assert {trials[f"{label}-seed10008"].data.tags["stage"] for label in anew} == {"confirmation"}
    exported = json.loads((state / "best-model" / "task.json").read_text(encoding="utf-8"))
    assert exported["trial"] == confirmed["winner"]

    # Nothing is made twice, and a rebuilt report says the same.
    files = {path: path.read_bytes() for path in state.glob("*.json")}
    again = launch("--resume", str(state), folder=tmp_path)
    assert again.code == 0, again.output + again.errors
    assert "starts" not in again.output and "Averaging weights" not in again.output
    for path, content in files.items():
        assert path.read_bytes() == content, path
