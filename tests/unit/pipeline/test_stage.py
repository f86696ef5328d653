"""A stage's trials that ended before an interruption, and what interrupts a stage."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.support.search_results import LANGUAGES, SPACE, entry, ledger_of, spec_of
from xlt_ray.cluster import connection
from xlt_ray.config.spec import ResourceSpec
from xlt_ray.config.task import load_task
from xlt_ray.data.batching import BatchSchedule
from xlt_ray.encoders.loading import EncoderInfo
from xlt_ray.names import LEDGER_FILE, OBJECTIVE, STATE
from xlt_ray.pipeline.settings import RunSettings
from xlt_ray.pipeline.stage import SearchRun, is_interrupted
from xlt_ray.search.ledger import Ledger, Record
from xlt_ray.search.plan import Plan
from xlt_ray.search.trials import Trial, TrialStatus
from xlt_ray.tracking.recorder import MlflowRecorder, NullRecorder, Recorder, TrackingSettings

AWAY = "http://127.0.0.1:9"
"""A server that refuses connections."""


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster for two trials at a time; the stages of these tests need no more of Ray."""
    monkeypatch.setattr(connection, "offered", lambda: connection.Cluster(2, 0))


def resumed(folder: Path, recorder: Recorder | None = None, **search: Any) -> SearchRun:
    """A search that goes on in a folder with a ledger."""
    spec = spec_of(SPACE, **search)
    steps = BatchSchedule(np.ones(96, dtype=np.int64), 16, 2, None, 7)
    encoder = EncoderInfo("x", "xlm-roberta", 2, 32, 100, 512)
    plan = Plan(spec, load_task(spec.task), encoder, {}, steps)
    settings = RunSettings(None, str(folder.parent), AWAY, "tests")
    console = Console(file=io.StringIO(), width=200)
    return SearchRun(plan, settings, folder, recorder or NullRecorder(), {}, console)


def printed(run: SearchRun) -> str:
    assert isinstance(run.console.file, io.StringIO)
    return run.console.file.getvalue()


def test_a_stage_ends_when_all_its_trials_ended() -> None:
    ended = [entry("01", LANGUAGES), entry("02", LANGUAGES, "pruned")]
    ended.append(entry("03", LANGUAGES, "failed", None))
    assert not is_interrupted(ended, 3)
    assert is_interrupted(ended, 4)
    assert is_interrupted([*ended, entry("04", LANGUAGES, "interrupted", None)], 4)


def test_a_trial_stopped_just_before_the_process_died_is_closed_in_mlflow(tmp_path: Path) -> None:
    # ASHA stops 02 at its first evaluation; the process died before it wrote that down.
    values = {"method.push_margin": 0.2, "method.view.radius": 0.5}
    ledger_of(tmp_path, ("01", values, [0.9], "pruned"), ("02", values, [0.1], "running"))
    recorder = MlflowRecorder(TrackingSettings(AWAY, "tests", tmp_path / STATE / "tracking"))
    recorder.start_search("any", {}, {})
    recorder.start_trial("02", "02", {}, {})
    recorder.log_metrics("02", {OBJECTIVE: 0.1}, 1)
    stopping = {"enabled": True, "grace_evaluations": 1, "reduction_factor": 2}
    own = {"num_trials": 2, "paper_trial": False, "baselines": (), "early_stopping": stopping}
    run = resumed(tmp_path, recorder, **own)
    entries = run.search_trials()
    assert [one.status for one in entries] == [TrialStatus.PRUNED, TrialStatus.PRUNED]
    assert not recorder.trials()["02"].open
    assert not run.interrupted and "2 trials (2 ended before)" in printed(run)
    recorder.finish("FINISHED", timeout_s=0)


def test_trials_of_other_candidates_do_not_count_as_those_of_the_stage(tmp_path: Path) -> None:
    # Brackets are no markup.
    folder = tmp_path / "runs [de]"
    ledger = Ledger(folder / STATE / "confirmation" / LEDGER_FILE)
    trials = [Trial.labelled(name).with_seed(8) for name in ("01", "02", "03")]
    for trial in trials:
        ledger.start(trial)
        metrics = {"evaluations": 1, OBJECTIVE: 0.5, "step": 10, "steps": 10}
        ledger.evaluated(trial.label, {**metrics, "test/accuracy/mean": 0.5})
    run = resumed(folder)
    assert len(run.run_fixed_trials(trials[:2], "confirmation")) == 2
    assert "2 trials (2 ended before)" in printed(run) and "runs [de]" in printed(run)


def test_kept_predictions_serve_where_the_checkpoint_is_gone(tmp_path: Path) -> None:
    run = resumed(tmp_path / "search")
    run.folder.mkdir()
    one = entry("01", LANGUAGES)
    with pytest.raises(FileNotFoundError):
        run.keep_predictions(one, str(tmp_path / "moved"))
    kept = run.folder / "predictions" / "01.npz"
    kept.write_bytes(b"copied before")
    run.keep_predictions(one, str(tmp_path / "moved"))
    assert kept.read_bytes() == b"copied before"


@pytest.mark.parametrize(
    ("most", "cost"),
    [
        (None, "cost 6.00, about 12.00 in all"),
        (2, "cost 6.00, about 12.00 in all"),
        (4, "cost at most 12.00, at most about 24.00 in all"),
    ],
)
def test_an_elastic_trial_costs_at_most_all_its_workers(
    tmp_path: Path, most: int | None, cost: str
) -> None:
    run = resumed(tmp_path)
    resources = ResourceSpec(
        workers_per_trial=2, max_workers_per_trial=most, gpus_per_worker=1, price_per_gpu_hour=3
    )
    run.plan = replace(run.plan, spec=run.plan.spec.model_copy(update={"resources": resources}))
    # One of two trials took an hour, with 2 or up to 4 halves of a GPU for 6 an hour each.
    hour = Record(Trial.labelled("01"), TrialStatus.FINISHED, {"time_total_s": 3600.0})
    ledger = Ledger(tmp_path / LEDGER_FILE)
    outlook = run._outlook(ledger, {"01": hour}, trials=2, concurrent=1, limited=False)
    assert outlook.text() == f"about 1 h 0 min left   {cost}"
