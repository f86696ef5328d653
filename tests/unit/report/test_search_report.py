"""A search that has ended is drawn and told, and nothing of that can cost it its end."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.support.search_results import LANGUAGES, curves, search
from tests.support.searching import write_search
from tests.unit.report.test_html import Page
from xlt_ray.config.loading import load_spec
from xlt_ray.config.task import load_task
from xlt_ray.data.batching import BatchSchedule
from xlt_ray.encoders.loading import EncoderInfo
from xlt_ray.names import LEDGER
from xlt_ray.report.search_report import SearchReport
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.plan import Plan
from xlt_ray.search.trials import Trial, TrialStatus

PICTURES = {
    *("history.png", "learning-curves.png", "test-accuracy.png", "importances.png"),
    *("slices.png", "parallel-coordinates.png", "landscape.png"),
}


class Kept:
    """Stands in for MLflow: notes which artifacts there are."""

    def __init__(self) -> None:
        self.artifacts: set[str] = set()

    def log_artifact(self, trial: str | None, path: Path, folder: str | None = None) -> None:
        assert trial is None and path.exists()
        self.artifacts.add(f"{folder}/{path.name}" if folder else path.name)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    spec = load_spec(str(write_search(tmp_path / "files")))
    task = load_task(spec.task).model_copy(update={"target_languages": LANGUAGES[1:3]})
    steps = BatchSchedule(np.ones(96, dtype=np.int64), 16, 2, None, 7)
    encoder = EncoderInfo("somewhere", "xlm-roberta", 2, 32, 100, 512)
    return Plan(spec, task, encoder, {}, steps)


def report_of(plan: Plan, folder: Path, entries: list[Entry], kept: Kept) -> SearchReport:
    """The report of a search that nothing else is known of."""
    recorder: Any = kept
    console = Console(file=io.StringIO())
    return SearchReport(plan, folder, Path("runs/here"), recorder, console, entries)


def finished(folder: Path) -> list[Entry]:
    """A search of 12 trials with its ledger in a folder."""
    entries = search(12, LANGUAGES[:3])
    ledger = Ledger(folder / LEDGER)
    evaluations = curves(entries)
    for entry in entries:
        ledger.start(entry.trial)
        for number, (step, value) in enumerate(evaluations.get(entry.label, ())):
            ledger.evaluated(
                entry.label,
                {"evaluations": number + 1, "step": step, "steps": 130, "objective": value},
            )
    return entries


def test_every_picture_is_drawn_kept_and_in_the_report(plan: Plan, tmp_path: Path) -> None:
    entries, kept = finished(tmp_path), Kept()
    report = report_of(plan, tmp_path, entries, kept)
    report.draw()
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == PICTURES
    assert kept.artifacts == {f"pictures/{name}" for name in PICTURES}
    report.write()
    assert "report.html" in kept.artifacts
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("img") == len(PICTURES)
    assert [row[1] for row in page.rows[1:]] == [entry.label for entry in entries]
    assert "python launch.py --resume runs/here" in page.text


def test_a_picture_that_fails_costs_nothing_else(
    plan: Plan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries, kept = finished(tmp_path), Kept()
    (tmp_path / LEDGER).unlink()
    stale = tmp_path / "pictures" / "test-accuracy.png"
    stale.parent.mkdir()
    stale.write_bytes(b"of another day")
    broken = [
        replace(entry, test={"accuracy/zero_shot_mean": 0.5}) if entry.label == "01" else entry
        for entry in entries
    ]
    with caplog.at_level(logging.DEBUG, logger="xlt_ray.report.search_report"):
        report_of(plan, tmp_path, broken, kept).draw()
    lacking = {"test-accuracy.png", "learning-curves.png"}
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == PICTURES - lacking
    assert kept.artifacts == {f"pictures/{name}" for name in PICTURES - lacking}
    told = {record.levelname: record.getMessage() for record in caplog.records}
    assert told["WARNING"].startswith("the picture test-accuracy could not be drawn")
    assert told["DEBUG"] == "no picture learning-curves: no trial was evaluated"


def test_a_search_without_a_finished_trial_has_a_report_too(plan: Plan, tmp_path: Path) -> None:
    failed = [
        Entry(Trial.labelled("plain"), TrialStatus.FAILED, None, {}, {}, {}, reason="no & memory"),
        Entry(Trial.labelled("01"), TrialStatus.FAILED, None, {}, {}, {}, reason="loss is nan"),
    ]
    report = report_of(plan, tmp_path, failed, Kept())
    report.draw()
    report.write()
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "no & memory" in page.text and "loss is nan" in page.text
    assert "img" not in page.tags and "best.yaml" not in page.text


def test_the_report_warns_of_trials_on_different_data(plan: Plan, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / LEDGER)
    ledger.begin({}, {"train-en.tsv (train, en)": "1"})
    entries = finished(tmp_path)
    Ledger(tmp_path / LEDGER).begin({}, {"train-en.tsv (train, en)": "2"})
    report_of(plan, tmp_path, entries, Kept()).write()
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "trained on different data: train-en.tsv (train, en) changed" in page.text
