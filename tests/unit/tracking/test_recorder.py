"""Recorders: the journal that MLflow's records wait in; `test_tracking.py` delivers it."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tests.support.waiting import LIMIT_S
from xlt_ray.journal import Journal
from xlt_ray.tracking.courier import Courier, Delivery
from xlt_ray.tracking.recorder import (
    MlflowRecorder,
    NullRecorder,
    Recorder,
    TrackingSettings,
    TrialRecords,
)

AWAY = "http://127.0.0.1:9"
"""A server that refuses connections."""


def test_the_journal_has_every_record_in_order(tmp_path: Path) -> None:
    began = time.time() - 0.001  # records have whole milliseconds
    recorder = MlflowRecorder(TrackingSettings(AWAY, "e", tmp_path))
    recorder.start_search("s", {"long": "x" * 7000}, {"kind": "search"})
    recorder.start_trial("01", "01 ear", {}, {})
    recorder.log_metrics("01", {"loss": math.nan}, 3)
    recorder.log_text("01", "text", "reports/summary.md")
    recorder.start_trial("02", "02 ear", {}, {})
    recorder.end_trial("01", "FINISHED")
    assert recorder.trials() == {"01": TrialRecords(1, False), "02": TrialRecords(0, True)}
    delivery = recorder.finish("KILLED", timeout_s=0)
    assert (delivery.delivered, delivery.pending) == (0, 8)
    assert recorder.trials() == {"01": TrialRecords(1, False), "02": TrialRecords(0, True)}
    records = [record for _, record in Journal(tmp_path / "journal.jsonl").read()]
    assert [record["kind"] for record in records] == [
        *("start", "start", "metrics", "artifact", "start", "end", "end", "end")
    ]
    assert [(r["trial"], r["status"]) for r in records[-2:]] == [("02", "KILLED"), (None, "KILLED")]
    assert len(records[0]["params"]["long"]) == 6000 and records[0]["params"]["long"][-1] == "…"
    assert math.isnan(records[2]["metrics"]["loss"])
    assert records[2]["step"] == 3
    assert began <= records[2]["time_ms"] / 1000 <= time.time()
    assert (tmp_path / records[3]["file"]).read_text() == "text"
    assert records[3]["folder"] == "reports"


def test_a_missing_artifact_is_an_error_at_once(tmp_path: Path) -> None:
    recorder = MlflowRecorder(TrackingSettings(AWAY, "e", tmp_path / "spool"))
    with pytest.raises(FileNotFoundError):
        recorder.log_artifact(None, tmp_path / "nowhere")
    recorder.finish("FAILED", timeout_s=0)


class Stopped(Courier):
    """Delivers nothing, as if the recorder gave up before MLflow answered."""

    def deliver(self, stop: threading.Event) -> None:
        pass


def test_a_delivery_that_takes_too_long_frees_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xlt_ray.tracking.recorder.Courier", Stopped)
    recorder = MlflowRecorder(TrackingSettings(AWAY, "e", tmp_path))
    assert recorder.finish("FINISHED", timeout_s=0.5).pending == 1
    # The thread ends a moment later.
    with FileLock(tmp_path / "lock", timeout=LIMIT_S):
        pass


def test_the_null_recorder_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recorder: Recorder = NullRecorder()
    recorder.start_search("s", {}, {})
    recorder.start_trial("01", "01", {}, {})
    recorder.log_metrics("01", {"loss": 1.0}, 1)
    recorder.set_tags("01", {})
    recorder.log_artifact("01", tmp_path / "nowhere")
    recorder.log_text("01", "text", "a.txt")
    recorder.end_trial("01", "FINISHED")
    assert recorder.trials() == {}
    assert recorder.run_id(None) is None and recorder.experiment_id() is None
    assert recorder.finish("FINISHED") == Delivery(0, 0, None)
    assert list(tmp_path.iterdir()) == []
