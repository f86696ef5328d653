"""Soups of a search that goes on with more trials."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Run
from rich.console import Console

from tests.support.searching import write_search
from xlt_ray.cluster import soup_task
from xlt_ray.config.loading import load_spec
from xlt_ray.config.task import load_task
from xlt_ray.data.batching import BatchSchedule
from xlt_ray.encoders.loading import EncoderInfo
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.pipeline import average
from xlt_ray.pipeline.average import make_soup_entries, make_soups
from xlt_ray.pipeline.confirm import average_runs
from xlt_ray.pipeline.settings import RunSettings
from xlt_ray.pipeline.stage import SearchRun
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.plan import Plan
from xlt_ray.search.soup_recipes import SoupRecipe, read_soups
from xlt_ray.search.trials import Trial, TrialStatus
from xlt_ray.tracking.client import open_client
from xlt_ray.tracking.recorder import MlflowRecorder, TrackingSettings


@pytest.fixture
def run(tmp_path: Path) -> SearchRun:
    """A search that records in a database of its own; its trials are those of a test."""
    spec = load_spec(str(write_search(tmp_path / "files")), {"search.soups": True})
    task = load_task(spec.task)
    steps = BatchSchedule(np.ones(96, dtype=np.int64), 16, 2, None, 7)
    plan = Plan(spec, task, EncoderInfo("x", "xlm-roberta", 2, 32, 100, 512), {}, steps)
    folder = tmp_path / "runs" / "search"
    (folder / "state").mkdir(parents=True)
    settings = RunSettings(None, str(folder.parent), f"sqlite:///{tmp_path}/mlflow.db", "soups")
    recorder = MlflowRecorder(
        TrackingSettings(settings.tracking_uri, "soups", folder / "state" / "tracking")
    )
    recorder.start_search("search", {}, {})
    return SearchRun(plan, settings, folder, recorder, {}, Console(file=io.StringIO(), width=200))


def trial(label: str, folder: Path) -> Entry:
    """A finished trial whose weights exist."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    test = {"accuracy/zero_shot_mean": 0.6}
    return Entry(
        Trial.labelled(label, {"method.pull_weight": float(label)}),
        TrialStatus.FINISHED,
        0.5,
        test,
        {},
        {},
        checkpoint=str(folder),
    )


def made_up(
    recipes: Sequence[SoupRecipe], members: Mapping[str, Entry], *others: Any, failed: Any
) -> dict[str, Any]:
    """As the tasks on the cluster return it: a soup of so many members scores as many percent."""
    found = {}
    for recipe in recipes:
        target = Path(others[-1]) / f"trial-{recipe.label}"
        target.mkdir(parents=True, exist_ok=True)
        labels = np.array([0, 1])
        with (target / "predictions.npz").open("wb") as file:
            Predictions(labels, labels, np.array([0, 1]), ("en", "de")).save(file)  # type: ignore[arg-type]
        score = len(recipe.members) / 100
        found[recipe.label] = {
            "candidates": list(recipe.members),
            "members": list(recipe.members),
            "metrics": {"objective": score, "test/accuracy/zero_shot_mean": score},
            "seconds": 1.0,
            "checkpoint": str(target),
        }
    return found


def soup_of(entries: Sequence[Entry]) -> Entry:
    return next(entry for entry in entries if entry.label == "soup")


def recorded_soups(run: SearchRun) -> list[Run]:
    """MLflow's runs of the soup `soup`."""
    client = open_client(run.settings.tracking_uri)
    experiment = client.get_experiment_by_name("soups")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], "tags.trial = 'soup'"))


def test_a_soup_of_more_trials_replaces_the_one_before_it_everywhere(
    run: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soup_task, "soups_on_cluster", made_up)
    run.entries = [trial(label, tmp_path / label) for label in ("01", "02")]
    assert soup_of(make_soups(run)).members == ("01", "02")
    run.entries = [*run.entries, trial("03", tmp_path / "03")]
    assert soup_of(make_soups(run)).members == ("01", "02", "03")
    run.recorder.finish("FINISHED")

    [found] = recorded_soups(run)
    assert found.info.run_name == "soup of 3" and found.info.status == "FINISHED"
    assert found.data.tags["members"] == "01 02 03"
    assert found.data.metrics["test/accuracy/zero_shot_mean"] == 0.03


def test_a_soup_whose_search_is_killed_before_it_is_recorded_is_recorded_later(
    run: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soup_task, "soups_on_cluster", made_up)
    run.entries = [trial(label, tmp_path / label) for label in ("01", "02")]
    make_soups(run)
    run.entries = [*run.entries, trial("03", tmp_path / "03")]
    with monkeypatch.context() as killed:

        def killed_now(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        killed.setattr(average, "_record", killed_now)
        with pytest.raises(KeyboardInterrupt):
            make_soups(run)
    make_soups(run)
    records = run.folder / "state" / "tracking" / "journal.jsonl"
    once = records.read_bytes()
    make_soups(run)
    assert records.read_bytes() == once
    run.recorder.finish("FINISHED")
    [found] = recorded_soups(run)
    assert found.data.tags["members"] == "01 02 03"


def test_a_soup_that_cannot_be_made_again_stays(
    run: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soup_task, "soups_on_cluster", made_up)
    run.entries = [trial(label, tmp_path / label) for label in ("01", "02")]
    make_soups(run)
    # The search has ended and deleted the weights; then it goes on with one more trial.
    for label in ("01", "02"):
        (tmp_path / label / "model.safetensors").unlink()
    run.entries = [*run.entries, trial("03", tmp_path / "03")]
    assert soup_of(make_soups(run)).members == ("01", "02")
    assert read_soups(run.folder)["soup"]["members"] == ["01", "02"]
    printed = run.console.file.getvalue()  # type: ignore[attr-defined]
    assert "Not averaged: soup of 3 trials" in printed and "weights of 01, 02 were" in printed


def test_lost_weights_cost_only_the_soups_that_need_them(
    run: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soup_task, "soups_on_cluster", made_up)
    trials = [trial(label, tmp_path / label) for label in ("01", "02", "03")]
    (tmp_path / "03" / "model.safetensors").unlink()
    recipes = [SoupRecipe("soup", ("01", "02", "03")), SoupRecipe("soup-ear", ("01", "02"))]
    made = make_soup_entries(recipes, trials, run, "search")
    assert [(one.label, one.members) for one in made] == [("soup-ear", ("01", "02"))]


def test_a_confirmation_averages_the_runs_of_its_own_candidate_only(
    run: SearchRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soup_task, "soups_on_cluster", made_up)

    def seeded(*labels: str) -> list[Entry]:
        found = [trial(label, tmp_path / f"{label}-seed8") for label in labels]
        return [replace(one, trial=one.trial.with_seed(8)) for one in found]

    def soup(*members: str) -> Entry:
        return Entry(Trial.labelled("soup"), TrialStatus.FINISHED, 0.5, {}, {}, {}, members=members)

    first = average_runs([soup("01", "02")], seeded("01", "02"), [8], run)
    assert [one.members for one in first] == [("01-seed8", "02-seed8")]
    # The search went on; the soup has another member, whose weights are lost.
    runs = seeded("01", "02", "03")
    (tmp_path / "03-seed8" / "model.safetensors").unlink()
    assert average_runs([soup("01", "02", "03")], runs, [8], run) == []
