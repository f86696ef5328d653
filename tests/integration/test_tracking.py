"""Recording in MLflow, against a real SQLite store and a real server on the loopback interface."""

from __future__ import annotations

import json
import math
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support.delivery import deliver
from tests.support.tracking_server import MlflowServer
from tests.support.waiting import LIMIT_S, until
from xlt_ray.errors import UserError
from xlt_ray.tracking.client import check_tracking
from xlt_ray.tracking.courier import Delivery
from xlt_ray.tracking.recorder import MlflowRecorder, TrackingSettings


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite store with MLflow's tables, made once since that takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    recorder = MlflowRecorder(TrackingSettings(f"sqlite:///{path}", "first", path.parent / "spool"))
    recorder.start_search("first", {}, {})
    assert recorder.finish("FINISHED", LIMIT_S).pending == 0
    return path


@pytest.fixture(scope="module")
def server(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(database, folder / "server.db")
    server = MlflowServer(folder, folder / "server.db")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def settings(database: Path, tmp_path: Path) -> TrackingSettings:
    """An experiment of the test's own in the shared SQLite store."""
    return TrackingSettings(f"sqlite:///{database}", tmp_path.name, tmp_path / "spool")


@pytest.fixture
def server_settings(server: MlflowServer, tmp_path: Path) -> TrackingSettings:
    return TrackingSettings(server.uri, tmp_path.name, tmp_path / "spool")


def query(database: Path, sql: str, *values: object) -> list[Any]:
    """Ask the database itself, not MLflow, what it holds."""
    connection = sqlite3.connect(database, timeout=30)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def stored_runs(database: Path, experiment: str) -> list[tuple[str, str]]:
    return query(
        database,
        "SELECT r.name, r.status FROM runs r JOIN experiments e USING (experiment_id)"
        " WHERE e.name = ? ORDER BY r.name",
        experiment,
    )


def stored_metrics(database: Path, experiment: str, run: str) -> list[tuple[str, int, float]]:
    return query(
        database,
        "SELECT m.key, m.step, m.value FROM metrics m JOIN runs r USING (run_uuid)"
        " JOIN experiments e USING (experiment_id) WHERE e.name = ? AND r.name = ?"
        " ORDER BY m.key, m.step, m.timestamp",
        experiment,
        run,
    )


def artifact_folder(settings: TrackingSettings, run: str) -> Path:
    database = Path(settings.uri.removeprefix("sqlite:///"))
    [(uri,)] = query(
        database,
        "SELECT r.artifact_uri FROM runs r JOIN experiments e USING (experiment_id)"
        " WHERE e.name = ? AND r.name = ?",
        settings.experiment,
        run,
    )
    return Path(uri.removeprefix("file://"))


def receipts(spool: Path) -> list[str]:
    path = spool / "delivered.jsonl"
    return path.read_text().splitlines(keepends=True) if path.exists() else []


def test_import_is_light_and_recording_is_quiet(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from xlt_ray.tracking.courier import Delivery;"
        "from xlt_ray.tracking.recorder import MlflowRecorder, TrackingSettings;"
        "assert 'mlflow' not in sys.modules;"
        "r = MlflowRecorder(TrackingSettings('sqlite:///mlflow.db', 'e', pathlib.Path('spool')));"
        "r.start_search('s', {}, {}); d = r.finish('FINISHED');"
        "assert d == Delivery(2, 0, None), d"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "spool"]


# Secrets are upper case and everything else lower case, so that a leaked letter is recognised.


def test_check_knows_a_server_from_another(server: MlflowServer) -> None:
    check_tracking(server.uri)
    with pytest.raises(UserError, match="404"):
        check_tracking(server.uri + "/elsewhere")


def test_trials_are_children_of_the_search(settings: TrackingSettings) -> None:
    from mlflow.tracking import MlflowClient

    recorder = MlflowRecorder(settings)
    recorder.start_search("search", {"trials": "2"}, {"kind": "search"}, {"view": "best first"})
    for trial in ("a", "b"):
        recorder.start_trial(trial, f"trial {trial}", {"train/lr": trial}, {"kind": "trial"})
    recorder.set_tags("a", {"kind": "best trial", "rank": "1"})
    recorder.end_trial("a", "FINISHED")
    recorder.end_trial("b", "KILLED")
    assert recorder.finish("FAILED") == Delivery(7, 0, None)

    client = MlflowClient(settings.uri)
    experiment = client.get_experiment_by_name(settings.experiment)
    assert experiment is not None
    assert experiment.tags["view"] == "best first"
    [parent] = client.search_runs([experiment.experiment_id], "tags.kind = 'search'")
    assert (parent.info.run_name, parent.info.status) == ("search", "FAILED")
    assert parent.data.params == {"trials": "2"}
    children = client.search_runs(
        [experiment.experiment_id],
        f"tags.mlflow.parentRunId = '{parent.info.run_id}'",
        order_by=["attributes.run_name"],
    )
    assert [(run.info.run_name, run.info.status) for run in children] == [
        ("trial a", "FINISHED"),
        ("trial b", "KILLED"),
    ]
    assert [run.data.params for run in children] == [{"train/lr": "a"}, {"train/lr": "b"}]
    assert [run.data.tags["kind"] for run in children] == ["best trial", "trial"]
    assert children[0].data.tags["rank"] == "1"


def test_every_step_of_interleaved_trials_is_kept(
    settings: TrackingSettings, database: Path
) -> None:
    names = ("dev/accuracy/de", "dev/accuracy/zh-CN", "train/loss/push")
    recorder = MlflowRecorder(settings)
    recorder.start_search("search", {}, {})
    trials = [str(number) for number in range(4)]
    for trial in trials:
        recorder.start_trial(trial, trial, {}, {})
    for step in range(700):
        for trial in trials:
            recorder.log_metrics(trial, {name: step / 7 + int(trial) for name in names}, step)
        recorder.log_metrics(None, {"best": step / 3}, step)
    assert recorder.finish("FINISHED").pending == 0

    for trial in trials:
        assert stored_metrics(database, settings.experiment, trial) == [
            (name, step, step / 7 + int(trial)) for name in names for step in range(700)
        ]
    assert stored_metrics(database, settings.experiment, "search") == [
        ("best", step, step / 3) for step in range(700)
    ]


def log_not_finite(settings: TrackingSettings) -> list[float]:
    """Record numbers that are none, and return what MLflow then holds."""
    from mlflow.tracking import MlflowClient

    recorder = MlflowRecorder(settings)
    recorder.start_search("search", {}, {})
    for step, value in enumerate([math.nan, math.inf, -math.inf, math.nan, 0.5]):
        recorder.log_metrics(None, {"loss": value}, step)
    assert recorder.finish("FINISHED") == Delivery(7, 0, None)

    client = MlflowClient(settings.uri)
    experiment = client.get_experiment_by_name(settings.experiment)
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    return [metric.value for metric in sorted(history, key=lambda metric: metric.step)]


def test_not_finite_metrics_arrive(settings: TrackingSettings) -> None:
    # MLflow's databases store infinity as the largest number.
    values = log_not_finite(settings)
    assert [str(value) for value in values] == [
        "nan", "1.7976931348623157e+308", "-1.7976931348623157e+308", "nan", "0.5"
    ]  # fmt: skip


def test_not_finite_metrics_arrive_at_a_server(server_settings: TrackingSettings) -> None:
    assert [math.isnan(value) for value in log_not_finite(server_settings)] == [
        True, False, False, True, False
    ]  # fmt: skip


def test_longer_and_more_values_than_mlflow_takes_at_once(
    settings: TrackingSettings, database: Path
) -> None:
    params = {f"p{number}": "x" * number for number in (1, 6000, 6001)}
    params |= {f"q{number}": "1" for number in range(250)}
    recorder = MlflowRecorder(settings)
    recorder.start_search("search", params, {"long": "y" * 9000})
    metrics = {f"m{number:04}": float(number) for number in range(1500)}
    recorder.log_metrics(None, metrics, 1)
    assert recorder.finish("FINISHED") == Delivery(3, 0, None)

    assert stored_metrics(database, settings.experiment, "search") == [
        (name, 1, value) for name, value in metrics.items()
    ]
    stored = dict(
        query(
            database,
            "SELECT p.key, p.value FROM params p JOIN runs r USING (run_uuid)"
            " JOIN experiments e USING (experiment_id) WHERE e.name = ?",
            settings.experiment,
        )
    )
    assert stored == params | {"p6001": "x" * 5999 + "…"}


def test_artifacts_outlive_their_source(settings: TrackingSettings, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "one.bin").write_bytes(b"\0one")
    (source / "inner" / "two.txt").write_text("two")
    recorder = MlflowRecorder(settings)
    recorder.start_search("search", {}, {})
    recorder.log_artifact(None, source / "one.bin")
    recorder.log_artifact(None, source, folder="kept")
    recorder.log_text(None, "zażółć", "reports/summary.md")
    recorder.log_text(None, "top", "top.txt")
    shutil.rmtree(source)
    assert recorder.finish("FINISHED") == Delivery(6, 0, None)

    folder = artifact_folder(settings, "search")
    assert folder.is_relative_to(Path(settings.uri.removeprefix("sqlite:///")).parent / "artifacts")
    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")} == {
        "one.bin": b"\0one",
        "kept/source/one.bin": b"\0one",
        "kept/source/inner/two.txt": b"two",
        "reports/summary.md": "zażółć".encode(),
        "top.txt": b"top",
    }
    assert list((settings.spool / "files").iterdir()) == []


def test_a_failing_artifact_store_holds_up_no_metrics(
    settings: TrackingSettings, database: Path, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder for artifacts should be")
    MlflowClient(settings.uri).create_experiment(settings.experiment, (blocked / "x").as_uri())
    recorder = MlflowRecorder(settings)
    recorder.start_search("search", {}, {})
    recorder.log_text(None, "text", "text.txt")
    recorder.log_metrics(None, {"loss": 0.5}, 1)
    first = recorder.finish("FINISHED", timeout_s=3)
    assert (first.delivered, first.pending) == (3, 1)
    assert first.problem is not None and "blocked" in first.problem
    assert stored_runs(database, settings.experiment) == [("search", "FINISHED")]
    assert stored_metrics(database, settings.experiment, "search") == [("loss", 1, 0.5)]

    blocked.unlink()
    assert deliver(settings.spool, settings.uri) == Delivery(1, 0, None)
    assert (artifact_folder(settings, "search") / "text.txt").read_text() == "text"
    assert deliver(settings.spool, settings.uri) == Delivery(0, 0, None)


def test_what_mlflow_refuses_is_reported_and_holds_up_nothing(
    settings: TrackingSettings, database: Path
) -> None:
    recorder = MlflowRecorder(settings)
    recorder.start_search("search", {"a?b": "1", "a/b": "1"}, {})
    recorder.log_metrics(None, {"a?b": 1.0, "a/b": 2.0}, 1)
    recorder.log_metrics("never started", {"a": 1.0}, 1)
    recorder.log_metrics(None, {"a/b": 3.0}, 2)
    delivery = recorder.finish("FINISHED")
    assert (delivery.delivered, delivery.pending) == (5, 0)
    assert delivery.problem is not None
    assert delivery.problem.startswith("MLflow refused 3 values, e.g. params 'a?b': ")
    assert stored_metrics(database, settings.experiment, "search") == [
        ("a/b", 1, 2.0),
        ("a/b", 2, 3.0),
    ]
    assert stored_runs(database, settings.experiment) == [("search", "FINISHED")]


def test_searches_in_one_process_do_not_mix(
    settings: TrackingSettings, database: Path, tmp_path: Path
) -> None:
    from mlflow import active_run

    names = ("left", "right")
    recorders = {
        name: MlflowRecorder(
            TrackingSettings(settings.uri, f"{tmp_path.name} {name}", tmp_path / name)
        )
        for name in names
    }
    for name in names:
        recorders[name].start_search(name, {}, {})
    for step in range(50):
        for name in names:
            recorders[name].log_metrics(None, {name: float(step)}, step)
    assert active_run() is None
    for name in names:
        assert recorders[name].finish("FINISHED").pending == 0
        assert stored_metrics(database, f"{tmp_path.name} {name}", name) == [
            (name, step, float(step)) for step in range(50)
        ]


def test_an_interrupted_search_goes_on_in_its_runs(
    settings: TrackingSettings, database: Path
) -> None:
    for first_step, status in ((0, "FAILED"), (5, "FINISHED")):
        recorder = MlflowRecorder(settings)
        recorder.start_search("search", {"seed": "1"}, {})
        recorder.start_trial("a", "trial", {"lr": "1"}, {})
        for step in range(first_step, first_step + 5):
            recorder.log_metrics("a", {"loss": float(step)}, step)
        recorder.end_trial("a", status)  # type: ignore[arg-type]
        assert recorder.finish(status) == Delivery(9, 0, None)  # type: ignore[arg-type]
        # A writer that was killed leaves half a line.
        with (settings.spool / "journal.jsonl").open("a") as journal:
            journal.write('{"kind": "metr')
    assert stored_runs(database, settings.experiment) == [
        ("search", "FINISHED"),
        ("trial", "FINISHED"),
    ]
    assert stored_metrics(database, settings.experiment, "trial") == [
        ("loss", step, float(step)) for step in range(10)
    ]


def test_a_run_keeps_its_parameters_when_the_search_resumes_with_others(
    settings: TrackingSettings,
) -> None:
    from mlflow.tracking import MlflowClient

    recorder = MlflowRecorder(settings)
    recorder.start_search("search", {"trials": "20", "seed": "1"}, {"commit": "a"})
    assert recorder.finish("KILLED") == Delivery(2, 0, None)
    recorder = MlflowRecorder(settings)
    recorder.start_search("search", {"trials": "40", "seed": "1", "new": "1"}, {"commit": "b"})
    assert recorder.finish("FINISHED") == Delivery(2, 0, None)
    run_id = recorder.run_id(None)
    assert run_id is not None
    run = MlflowClient(settings.uri).get_run(run_id)
    assert run.data.params == {"trials": "20", "seed": "1", "new": "1"}
    assert run.data.tags["commit"] == "b"


@pytest.mark.parametrize("deleted", ["search", "trial"])
def test_a_deleted_run_is_restored_when_its_search_resumes(
    deleted: str, settings: TrackingSettings, database: Path
) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(settings.uri)
    for step in (0, 1):
        recorder = MlflowRecorder(settings)
        recorder.start_search("search", {}, {})
        recorder.start_trial("a", "trial", {}, {})
        recorder.log_metrics("a", {"loss": 0.5}, step)
        recorder.log_metrics(None, {"best": 0.5}, step)
        recorder.end_trial("a", "KILLED")
        assert recorder.finish("KILLED") == Delivery(6, 0, None)
        run_id = recorder.run_id(None if deleted == "search" else "a")
        assert run_id is not None
        assert client.get_run(run_id).info.lifecycle_stage == "active"
        if step == 0:
            client.delete_run(run_id)
    assert stored_runs(database, settings.experiment) == [("search", "KILLED"), ("trial", "KILLED")]
    assert len(stored_metrics(database, settings.experiment, "trial")) == 2
    assert len(stored_metrics(database, settings.experiment, "search")) == 2


@pytest.mark.parametrize("store", ["database", "folder"])
def test_a_search_goes_on_in_a_store_that_lacks_its_runs(
    store: str, settings: TrackingSettings, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    elsewhere = str(tmp_path / "runs")
    if store == "database":
        elsewhere = f"sqlite:///{tmp_path / 'other.db'}"
        shutil.copy(settings.uri.removeprefix("sqlite:///"), tmp_path / "other.db")
    recorder = MlflowRecorder(settings)
    recorder.start_search("search", {}, {})
    for trial in ("a", "b"):
        recorder.start_trial(trial, f"trial {trial}", {}, {})
    recorder.end_trial("b", "FINISHED")
    assert recorder.finish("KILLED").pending == 0

    # The search resumes with another store; trial b does not start again.
    recorder = MlflowRecorder(TrackingSettings(elsewhere, settings.experiment, settings.spool))
    recorder.start_search("search", {}, {})
    recorder.log_metrics("b", {"loss": 0.5, "other": 0.5}, 1)
    recorder.log_text("b", "text", "text.txt")
    recorder.end_trial("b", "FINISHED")
    recorder.start_trial("a", "trial a", {}, {})
    recorder.log_metrics("a", {"loss": 0.5}, 1)
    delivery = recorder.finish("FINISHED")
    assert delivery.pending == 0
    assert delivery.problem is not None
    assert delivery.problem.startswith("MLflow refused 3 values, e.g. 2 metrics: Run ")

    client = MlflowClient(elsewhere)
    experiment = client.get_experiment_by_name(settings.experiment)
    assert experiment is not None
    search, child = client.search_runs([experiment.experiment_id], order_by=["attributes.run_name"])
    assert (search.info.run_name, child.info.run_name) == ("search", "trial a")
    assert child.data.tags["mlflow.parentRunId"] == search.info.run_id
    assert child.data.metrics == {"loss": 0.5}


def test_a_search_goes_on_in_another_experiment(settings: TrackingSettings) -> None:
    from mlflow.tracking import MlflowClient

    recorder = MlflowRecorder(settings)
    recorder.start_search("search", {}, {})
    recorder.start_trial("a", "trial a", {}, {})
    assert recorder.finish("KILLED").pending == 0
    recorder = MlflowRecorder(TrackingSettings(settings.uri, "other", settings.spool))
    recorder.start_search("search", {}, {})
    for trial in ("a", "b"):
        recorder.start_trial(trial, f"trial {trial}", {}, {})
        recorder.end_trial(trial, "FINISHED")
    delivery = recorder.finish("FINISHED")
    assert (delivery.pending, delivery.problem) == (0, None)
    client = MlflowClient(settings.uri)
    experiment = client.get_experiment_by_name("other")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], order_by=["attributes.run_name"])
    assert [run.info.run_name for run in found] == ["search", "trial a", "trial b"]
    assert {run.data.tags.get("mlflow.parentRunId") for run in found[1:]} == {found[0].info.run_id}


def test_a_search_goes_on_in_an_experiment_that_was_renamed(settings: TrackingSettings) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(settings.uri)
    for status in ("KILLED", "FINISHED"):
        recorder = MlflowRecorder(settings)
        recorder.start_search("search", {}, {})
        recorder.start_trial("a", "trial a", {}, {})
        recorder.end_trial("a", "FINISHED")
        assert recorder.finish(status).pending == 0
        if status == "KILLED":
            experiment = client.get_experiment_by_name(settings.experiment)
            assert experiment is not None
            client.rename_experiment(experiment.experiment_id, "for the paper")
    found = client.search_runs([experiment.experiment_id], order_by=["attributes.run_name"])
    assert [run.info.run_name for run in found] == ["search", "trial a"]
    assert {run.info.status for run in found} == {"FINISHED"}
    assert client.get_experiment_by_name(settings.experiment) is None


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_a_search_that_stops_closes_its_open_trials(
    status: Literal["FAILED", "KILLED"], settings: TrackingSettings, database: Path
) -> None:
    recorder = MlflowRecorder(settings)
    recorder.start_search("search", {}, {})
    recorder.start_trial("a", "trial a", {}, {})
    recorder.start_trial("b", "trial b", {}, {})
    recorder.end_trial("b", "FINISHED")
    assert recorder.finish(status).pending == 0
    assert stored_runs(database, settings.experiment) == [
        ("search", status),
        ("trial a", status),
        ("trial b", "FINISHED"),
    ]


def test_a_spool_has_one_user_at_a_time(settings: TrackingSettings) -> None:
    recorder = MlflowRecorder(settings)
    with pytest.raises(UserError, match="is using this spool"):
        MlflowRecorder(settings)
    recorder.start_search("search", {}, {})
    assert recorder.finish("FINISHED").pending == 0


@pytest.mark.parametrize("store", ["database", "folder"])
def test_a_crash_before_any_receipt_doubles_nothing(
    store: str, settings: TrackingSettings, tmp_path: Path
) -> None:
    """MLflow has accepted a record, and the process dies before it writes that down."""
    from mlflow.tracking import MlflowClient

    uri = settings.uri if store == "database" else str(tmp_path / "runs")
    # A search whose server is away fills a journal.
    recorder = MlflowRecorder(TrackingSettings("http://127.0.0.1:9", tmp_path.name, settings.spool))
    recorder.start_search("search", {"seed": "1"}, {"a": "b"})
    recorder.start_trial("a", "trial", {"lr": "1"}, {})
    for step in range(3):
        recorder.log_metrics("a", {"loss": step / 3, "other": math.nan}, step)
        recorder.log_metrics(None, {"best": step / 3}, step)
    recorder.log_text("a", "text", "text.txt")
    recorder.end_trial("a", "FINISHED")
    assert recorder.finish("FINISHED", timeout_s=0).delivered == 0

    journal = settings.spool / "journal.jsonl"
    records = journal.read_text().splitlines(keepends=True)
    journal.write_text("")
    before: list[str] = []
    for record in records:
        with journal.open("a") as file:
            file.write(record)
        assert deliver(settings.spool, uri) == Delivery(1, 0, None)
        (settings.spool / "delivered.jsonl").write_text("".join(before))
        assert deliver(settings.spool, uri) == Delivery(1, 0, None)
        before = receipts(settings.spool)

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(tmp_path.name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.run_name"])
    assert [(run.info.run_name, run.info.status) for run in runs] == [
        ("search", "FINISHED"),
        ("trial", "FINISHED"),
    ]

    def steps(run: int, metric: str) -> list[int]:
        return sorted(m.step for m in client.get_metric_history(runs[run].info.run_id, metric))

    assert steps(0, "best") == steps(1, "loss") == steps(1, "other") == [0, 1, 2]
    assert len(client.list_artifacts(runs[1].info.run_id)) == 1


def test_a_batch_that_fails_half_way_doubles_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.tracking import MlflowClient

    # A plain folder, as MLflow's databases would drop a doubled metric themselves.
    settings = TrackingSettings(str(tmp_path / "runs"), "e", tmp_path / "spool")
    recorder = MlflowRecorder(settings)
    recorder.start_search("search", {}, {})
    recorder.start_trial("a", "trial", {}, {})
    assert recorder.finish("FINISHED").pending == 0
    # Further records, written at once: an artifact, then metrics of both runs as one batch.
    for step in range(3):
        recorder.log_metrics("a", {"loss": step / 3}, step)
    recorder.log_metrics(None, {"best": 0.5}, 1)
    recorder.log_text("a", "text", "text.txt")
    journal = settings.spool / "journal.jsonl"
    *start, a0, a1, a2, best, text = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*start, text, a0, a1, a2, best]))

    client = MlflowClient(settings.uri)
    experiment = client.get_experiment_by_name("e")
    assert experiment is not None
    search, trial = client.search_runs([experiment.experiment_id], order_by=["attributes.run_name"])
    metrics = tmp_path / "runs" / experiment.experiment_id / search.info.run_id / "metrics"
    # A folder where the file of a metric should be.
    (metrics / "best").mkdir()
    recorder = MlflowRecorder(settings)
    until(lambda: bool(caplog.records))
    assert len(client.get_metric_history(trial.info.run_id, "loss")) == 3
    (metrics / "best").rmdir()
    assert recorder.finish("FINISHED") == Delivery(6, 0, None)
    assert len(client.get_metric_history(trial.info.run_id, "loss")) == 3
    assert len(client.get_metric_history(search.info.run_id, "best")) == 1


def test_a_killed_server_misses_and_doubles_nothing(
    server: MlflowServer, server_settings: TrackingSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    recorder = MlflowRecorder(server_settings)
    recorder.start_search("search", {}, {})
    recorder.start_trial("a", "trial", {"lr": "1"}, {})

    def log(steps: range) -> None:
        for step in steps:
            recorder.log_metrics("a", {"loss": step / 3, "dev/accuracy/de": step / 7}, step)

    def arrived() -> int:
        return len(stored_metrics(server.database, server_settings.experiment, "trial"))

    log(range(1000))
    until(lambda: arrived() > 0)
    # Killed while the writes go on.
    writer = threading.Thread(target=log, args=(range(1000, 5000),))
    writer.start()
    server.kill()
    writer.join()
    recorder.log_text("a", "text", "text.txt")
    recorder.end_trial("a", "FINISHED")
    assert arrived() < 10_000
    server.start()
    assert recorder.finish("FINISHED", LIMIT_S) == Delivery(5005, 0, None)

    assert stored_metrics(server.database, server_settings.experiment, "trial") == [
        *(("dev/accuracy/de", step, step / 7) for step in range(5000)),
        *(("loss", step, step / 3) for step in range(5000)),
    ]
    assert stored_runs(server.database, server_settings.experiment) == [
        ("search", "FINISHED"),
        ("trial", "FINISHED"),
    ]
    assert capfd.readouterr().out == ""


def test_a_server_that_stays_away_loses_nothing(
    server: MlflowServer, server_settings: TrackingSettings, caplog: pytest.LogCaptureFixture
) -> None:
    away = TrackingSettings(
        "http://me:SECRET@127.0.0.1:9", server_settings.experiment, server_settings.spool
    )
    recorder = MlflowRecorder(away)
    recorder.start_search("search", {"seed": "1"}, {})
    recorder.start_trial("a", "trial", {}, {})
    for step in range(2000):
        recorder.log_metrics("a", {"loss": step / 3}, step)
    recorder.log_text("a", "text", "text.txt")
    recorder.end_trial("a", "FINISHED")
    until(lambda: bool(caplog.records))
    start = time.monotonic()
    delivery = recorder.finish("FINISHED", timeout_s=1)
    assert time.monotonic() - start < 5
    assert delivery == Delivery(0, 2005, "no MLflow server answers at http://***@127.0.0.1:9")
    journal = (away.spool / "journal.jsonl").read_text()
    kept = [json.loads(line) for line in journal.splitlines()]
    assert [record["step"] for record in kept if record["kind"] == "metrics"] == list(range(2000))
    assert len(kept) == 2005
    assert "SECRET" not in caplog.text + journal

    here = server.uri.replace("http://", "http://me:SECRET@")
    assert deliver(away.spool, here) == Delivery(2005, 0, None)
    assert deliver(away.spool, here) == Delivery(0, 0, None)
    assert stored_metrics(server.database, away.experiment, "trial") == [
        ("loss", step, step / 3) for step in range(2000)
    ]
    assert stored_runs(server.database, away.experiment) == [
        ("search", "FINISHED"),
        ("trial", "FINISHED"),
    ]
    assert b"SECRET" not in server.database.read_bytes()
    assert "SECRET" not in "".join(receipts(away.spool))


def test_a_server_that_hangs_stalls_nobody(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(LIMIT_S)
        uri = f"http://127.0.0.1:{mute.getsockname()[1]}"
        recorder = MlflowRecorder(TrackingSettings(uri, "e", tmp_path / "spool"))
        recorder.start_search("search", {}, {})
        connection, _ = mute.accept()
        with connection:
            start = time.monotonic()
            for step in range(1000):
                recorder.log_metrics(None, {"loss": 1.0}, step)
            delivery = recorder.finish("FINISHED", timeout_s=1)
            assert time.monotonic() - start < 10
    assert (delivery.delivered, delivery.pending) == (0, 1002)
