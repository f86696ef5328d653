"""Recording a search in MLflow without ever waiting for MLflow.

Every write is appended to a journal in the search's folder and delivered from there by one
background thread, so that a tracking server which is slow, away or gone neither stalls the search
nor loses a result. What a search could not deliver, :func:`deliver` sends later.

A spool folder holds:

* ``journal.jsonl``: what is to be recorded, one record a line, in order;
* ``delivered.jsonl``: what MLflow has accepted: how many records, and the run ids it gave;
* ``files/``: copies of artifacts that are not delivered yet;
* ``lock``: held by whoever delivers.

Delivery is at least once, and made exactly once by what MLflow stores: a run is looked up by the
tag :data:`RUN_KEY_TAG` before it is created, and after an interruption metrics are compared with
the run's history before they are sent again. Parameters and tags overwrite themselves.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from xlt_ray.journal import append_line, drop_torn_line, read_lines
from xlt_ray.tracking.client import in_one_line
from xlt_ray.tracking.courier import Courier, Delivery, lock_spool
from xlt_ray.tracking.uri import redact

Status = Literal["FINISHED", "FAILED", "KILLED"]

# MLflow refuses longer values and larger requests.
_MAX_PARAM_CHARS = 6000
_MAX_TAG_CHARS = 5000
_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 30.0
_RETRY_WHILE_FINISHING_S = 2.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackingSettings:
    """Where a search is recorded.

    Attributes:
        uri: MLflow tracking URI: ``sqlite:///file.db``, a folder, ``http://server``, ...
        experiment: Name of the MLflow experiment; created if there is none.
        spool: Folder for the journal; created if there is none. Given the folder of an earlier,
            interrupted search, recording goes on in the same runs.
    """

    uri: str
    experiment: str
    spool: Path


@dataclass(frozen=True)
class TrialRecords:
    """What a spool has of one trial.

    Attributes:
        metrics: How often metrics were recorded.
        open: Whether its run was opened, and not closed since.
    """

    metrics: int = 0
    open: bool = False


class Recorder:
    """Records one search: a parent run for the search and a child run for each trial.

    No method waits for MLflow, except :meth:`finish`, which waits for a limited time. All methods
    may be called from any thread. Writing the journal can raise :class:`OSError` (disk full).
    """

    def __init__(self, settings: TrackingSettings) -> None:
        """Open the spool and start to deliver.

        Args:
            settings: Where to record.

        Raises:
            UserError: Another recorder or delivery is using the spool.
        """
        self._settings = settings
        self._journal = settings.spool / "journal.jsonl"
        self._files = settings.spool / "files"
        self._files.mkdir(parents=True, exist_ok=True)
        self._lock = lock_spool(settings.spool, limit_s=0)
        drop_torn_line(self._journal)
        self._journal.touch()
        self._courier = Courier(settings.spool, settings.uri)
        self._problem: str | None = None
        self._writing = threading.Lock()
        self._new = threading.Event()
        self._finishing = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow-delivery", daemon=True)
        self._thread.start()

    def start_search(
        self,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        experiment_tags: Mapping[str, str] | None = None,
    ) -> None:
        """Open the parent run, or reopen it when an interrupted search goes on.

        Args:
            name: Name of the run.
            params: Parameters of the run; values beyond MLflow's limit are cut with "…".
            tags: Tags of the run; likewise.
            experiment_tags: Tags of the experiment that the run is in; likewise.
        """
        self._start(None, name, params, tags, experiment_tags or {})

    def start_trial(
        self, trial: str, name: str, params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Open the run of a trial below the parent run, or reopen it.

        Args:
            trial: Key of the trial, unique in the search.
            name: Name of the run.
            params: Parameters of the run; values beyond MLflow's limit are cut with "…".
            tags: Tags of the run; likewise.
        """
        self._start(trial, name, params, tags, {})

    def trials(self) -> dict[str, TrialRecords]:
        """Tell what the spool has of each trial, by key, also from before an interruption."""
        found: dict[str, TrialRecords] = {}
        for _, record in read_lines(self._journal, 0):
            key = record["trial"]
            if key is None:
                continue
            known = found.get(key, TrialRecords())
            match record["kind"]:
                case "start":
                    known = replace(known, open=True)
                case "end":
                    known = replace(known, open=False)
                case "metrics":
                    known = replace(known, metrics=known.metrics + 1)
            found[key] = known
        return found

    def log_metrics(
        self,
        trial: str | None,
        metrics: Mapping[str, float],
        step: int,
        timestamp_ms: int | None = None,
    ) -> None:
        """Record metrics of one step; every step is kept.

        Args:
            trial: Key of the trial; ``None`` for the parent run.
            metrics: Values by name, e.g. ``dev/accuracy/de``; may be infinite or not a number.
            step: Training step.
            timestamp_ms: Milliseconds since 1970; now if omitted.
        """
        self._append(
            {
                "kind": "metrics",
                "trial": trial,
                "metrics": {name: float(value) for name, value in metrics.items()},
                "step": int(step),
                "time_ms": _now_ms() if timestamp_ms is None else int(timestamp_ms),
            }
        )

    def set_tags(self, trial: str | None, tags: Mapping[str, str]) -> None:
        """Set tags of a run.

        Args:
            trial: Key of the trial; ``None`` for the parent run.
            tags: Values by name; values beyond MLflow's limit are cut with "…".
        """
        self._append({"kind": "tags", "trial": trial, "tags": _cut(tags, _MAX_TAG_CHARS)})

    def log_artifact(self, trial: str | None, path: Path, folder: str | None = None) -> None:
        """Record a file or a folder as it is now; the source may be deleted afterwards.

        Args:
            trial: Key of the trial; ``None`` for the parent run.
            path: File or folder.
            folder: Folder among the artifacts of the run; its top if omitted.

        Raises:
            FileNotFoundError: There is nothing at ``path``.
        """
        copy = self._new_file(path.name)
        if path.is_dir():
            shutil.copytree(path, copy)
        else:
            shutil.copyfile(path, copy)
        self._append_artifact(trial, copy, folder)

    def log_text(self, trial: str | None, text: str, file_name: str) -> None:
        """Record a text as a file.

        Args:
            trial: Key of the trial; ``None`` for the parent run.
            text: Content, stored as UTF-8.
            file_name: Path among the artifacts of the run, e.g. ``reports/summary.md``.
        """
        target = PurePosixPath(file_name)
        copy = self._new_file(target.name)
        copy.write_text(text, encoding="utf-8")
        folder = str(target.parent)
        self._append_artifact(trial, copy, None if folder == "." else folder)

    def end_trial(self, trial: str, status: Status) -> None:
        """Close the run of a trial.

        Args:
            trial: Key of the trial.
            status: How it ended.
        """
        self._append({"kind": "end", "trial": trial, "status": status, "time_ms": _now_ms()})

    def finish(self, status: Status, timeout_s: float = 60) -> Delivery:
        """Close the parent run and deliver what is left.

        Args:
            status: How the search ended.
            timeout_s: Longest time to wait for MLflow, in seconds.

        Returns:
            What was delivered by this recorder and what stays in the spool.
        """
        self._append({"kind": "end", "trial": None, "status": status, "time_ms": _now_ms()})
        self._finishing.set()
        self._new.set()
        self._thread.join(timeout_s)
        self._stop.set()
        return self._courier.summary(self._problem)

    def run_id(self, trial: str | None) -> str | None:
        """MLflow's id of a run; None as long as the run is not delivered.

        Args:
            trial: Key of the trial; ``None`` for the parent run.
        """
        return self._courier.run_id(trial)

    def experiment_id(self) -> str | None:
        """MLflow's id of the experiment; None as long as no run in it is delivered."""
        return self._courier.experiment_id(self._settings.experiment)

    def _start(
        self,
        trial: str | None,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        experiment_tags: Mapping[str, str],
    ) -> None:
        self._append(
            {
                "kind": "start",
                "trial": trial,
                "experiment": self._settings.experiment,
                "run_key": uuid.uuid4().hex,
                "name": name,
                "params": _cut(params, _MAX_PARAM_CHARS),
                "tags": _cut(tags, _MAX_TAG_CHARS),
                "experiment_tags": _cut(experiment_tags, _MAX_TAG_CHARS),
                "time_ms": _now_ms(),
            }
        )

    def _new_file(self, name: str) -> Path:
        folder = self._files / uuid.uuid4().hex
        folder.mkdir()
        return folder / name

    def _append_artifact(self, trial: str | None, copy: Path, folder: str | None) -> None:
        self._append(
            {
                "kind": "artifact",
                "trial": trial,
                "file": copy.relative_to(self._settings.spool).as_posix(),
                "folder": folder,
            }
        )

    def _append(self, record: dict[str, Any]) -> None:
        with self._writing:
            append_line(self._journal, record)
        self._new.set()

    def _run(self) -> None:
        delay = _FIRST_RETRY_S
        try:
            while not self._stop.is_set():
                self._new.clear()
                try:
                    self._courier.deliver(self._stop)
                except Exception as error:
                    # Whatever is wrong with MLflow must not end the delivery of later records.
                    self._failed(error)
                    if self._finishing.is_set():
                        self._stop.wait(min(delay, _RETRY_WHILE_FINISHING_S))
                    else:
                        self._finishing.wait(delay)
                    delay = min(2 * delay, _LAST_RETRY_S)
                    continue
                self._succeeded()
                delay = _FIRST_RETRY_S
                if self._finishing.is_set() and not self._courier.pending():
                    return
                self._new.wait()
        finally:
            self._lock.release()

    def _failed(self, error: Exception) -> None:
        if self._problem is None:
            _logger.warning(
                "%s; the search goes on and its results are kept in %s until they can be delivered",
                in_one_line(error, self._settings.uri),
                self._settings.spool,
            )
        self._problem = in_one_line(error, self._settings.uri)

    def _succeeded(self) -> None:
        if self._problem is not None:
            _logger.warning("MLflow is back: %s", redact(self._settings.uri))
        self._problem = None


def _cut(values: Mapping[str, str], limit: int) -> dict[str, str]:
    texts = {name: str(value) for name, value in values.items()}
    return {n: t if len(t) <= limit else t[: limit - 1] + "…" for n, t in texts.items()}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Unrecorded(Recorder):
    """Takes the place of the records in MLflow, which have all of this already."""

    def __init__(self) -> None:
        """Open nothing."""

    def log_metrics(
        self,
        trial: str | None,
        metrics: Mapping[str, float],
        step: int,
        timestamp_ms: int | None = None,
    ) -> None:
        """Do nothing."""

    def log_artifact(self, trial: str | None, path: Path, folder: str | None = None) -> None:
        """Do nothing."""
