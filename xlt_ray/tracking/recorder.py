"""Record a search in MLflow without waiting for MLflow; the pipeline, reports and cluster call it.

The recorder appends every record to a journal in the search's folder. A background thread delivers
the journal, so that a slow or unreachable tracking server neither stalls the search nor loses a
result. A search that is resumed delivers what it could not deliver before.

A spool folder holds:

* ``journal.jsonl``: the records in order, one per line;
* ``delivered.jsonl``: how many records MLflow has accepted, and the run ids it assigned;
* ``files/``: copies of artifacts that are not delivered yet;
* ``lock``: held by the process that delivers.

Each record is sent at least once, and MLflow keeps it exactly once: the courier looks up a run by
the tag :data:`xlt_ray.tracking.courier.RUN_KEY_TAG` before it creates one, and after an
interruption it compares metrics with the run's history before it sends them again. Tags overwrite
themselves. Parameters keep their first values, since MLflow never changes one; if a search resumes
with others, its artifact ``search.yaml`` has the current ones.
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
from typing import Any, Literal, Protocol

from xlt_ray.journal import Journal
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
        spool: Folder for the journal; created if there is none. With the spool of an interrupted
            search, recording continues in the same runs.
    """

    uri: str
    experiment: str
    spool: Path


@dataclass(frozen=True)
class TrialRecords:
    """Summary of a trial's records in the spool.

    Attributes:
        metrics: Number of calls that recorded metrics.
        open: Whether the trial's run is open, or was closed only because the search stopped.
    """

    metrics: int = 0
    open: bool = False


class Recorder(Protocol):
    """Records one search: a parent run for the search and a child run for each trial.

    :class:`MlflowRecorder` writes to MLflow, :class:`NullRecorder` discards everything.
    """

    def start_search(
        self,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        experiment_tags: Mapping[str, str] | None = None,
    ) -> None:
        """Open the parent run, or reopen it when an interrupted search resumes.

        Args:
            name: Name of the run.
            params: Parameters of the run; those that a reopened run has keep their values.
            tags: Tags of the run.
            experiment_tags: Tags of the experiment.
        """
        ...

    def start_trial(
        self, trial: str, name: str, params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Open the run of a trial below the parent run, or reopen it.

        Args:
            trial: Key of the trial, unique in the search.
            name: Name of the run.
            params: Parameters of the run.
            tags: Tags of the run.
        """
        ...

    def trials(self) -> dict[str, TrialRecords]:
        """Return a summary of the records of each trial, by key, including earlier sessions."""
        ...

    def log_metrics(self, trial: str | None, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of one step.

        Args:
            trial: Key of the trial; ``None`` for the parent run.
            metrics: Values by name, e.g. ``dev/accuracy/de``; may be infinite or NaN.
            step: Training step.
        """
        ...

    def set_tags(self, trial: str | None, tags: Mapping[str, str]) -> None:
        """Set tags of a run.

        Args:
            trial: Key of the trial; ``None`` for the parent run.
            tags: Values by name.
        """
        ...

    def log_artifact(self, trial: str | None, path: Path, folder: str | None = None) -> None:
        """Record a file or a folder as it is now; the source may be deleted afterwards.

        Args:
            trial: Key of the trial; ``None`` for the parent run.
            path: File or folder.
            folder: Folder among the artifacts of the run; ``None`` for the top.
        """
        ...

    def log_text(self, trial: str | None, text: str, file_name: str) -> None:
        """Record a text as a file.

        Args:
            trial: Key of the trial; ``None`` for the parent run.
            text: Content, stored as UTF-8.
            file_name: Path among the artifacts of the run, e.g. ``reports/summary.md``.
        """
        ...

    def end_trial(self, trial: str, status: Status) -> None:
        """Close the run of a trial.

        Args:
            trial: Key of the trial.
            status: How the trial ended.
        """
        ...

    def finish(self, status: Status, timeout_s: float = 60) -> Delivery:
        """Close the parent run and deliver the remaining records.

        Args:
            status: How the search ended.
            timeout_s: Longest time to wait for the delivery, in seconds.

        Returns:
            The number of delivered and of pending records.
        """
        ...

    def run_id(self, trial: str | None) -> str | None:
        """Return MLflow's id of a run; ``None`` until the run is delivered.

        Args:
            trial: Key of the trial; ``None`` for the parent run.
        """
        ...

    def experiment_id(self) -> str | None:
        """Return MLflow's id of the experiment; ``None`` until one of its runs is delivered."""
        ...


class MlflowRecorder:
    """Records a search in MLflow through a spool folder.

    Only :meth:`finish` waits for MLflow, and for a limited time. All methods may be called from any
    thread. Writing the journal can raise :class:`OSError`, e.g. when the disk is full.
    """

    def __init__(self, settings: TrackingSettings) -> None:
        """Open the spool and start the delivery thread.

        Args:
            settings: Where to record.

        Raises:
            UserError: Another recorder uses the spool.
        """
        self._settings = settings
        self._journal = Journal(settings.spool / "journal.jsonl")
        self._files = settings.spool / "files"
        self._files.mkdir(parents=True, exist_ok=True)
        self._lock = lock_spool(settings.spool)
        self._journal.drop_torn_line()
        self._journal.file.touch()
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
        """Open the parent run; values longer than MLflow's limit are cut with "…"."""
        self._start(None, name, params, tags, experiment_tags or {})

    def start_trial(
        self, trial: str, name: str, params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Open the run of a trial; values longer than MLflow's limit are cut with "…"."""
        self._start(trial, name, params, tags, {})

    def trials(self) -> dict[str, TrialRecords]:
        """Return a summary of the records of each trial, read from the journal."""
        found: dict[str, TrialRecords] = {}
        for _, record in self._journal.read():
            key = record["trial"]
            if key is None:
                continue
            known = found.get(key, TrialRecords())
            match record["kind"]:
                case "start":
                    known = replace(known, open=True)
                case "end":
                    known = replace(known, open=record.get("unfinished", False))
                case "metrics":
                    known = replace(known, metrics=known.metrics + 1)
            found[key] = known
        return found

    def log_metrics(self, trial: str | None, metrics: Mapping[str, float], step: int) -> None:
        """Record metrics of one step; every step is kept."""
        self._append(
            {
                "kind": "metrics",
                "trial": trial,
                "metrics": {name: float(value) for name, value in metrics.items()},
                "step": int(step),
                "time_ms": _now_ms(),
            }
        )

    def set_tags(self, trial: str | None, tags: Mapping[str, str]) -> None:
        """Set tags of a run; values longer than MLflow's limit are cut with "…"."""
        self._append({"kind": "tags", "trial": trial, "tags": _cut(tags, _MAX_TAG_CHARS)})

    def log_artifact(self, trial: str | None, path: Path, folder: str | None = None) -> None:
        """Copy a file or a folder into the spool and record it.

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
        """Record a text as a file."""
        target = PurePosixPath(file_name)
        copy = self._new_file(target.name)
        copy.write_text(text, encoding="utf-8")
        folder = str(target.parent)
        self._append_artifact(trial, copy, None if folder == "." else folder)

    def end_trial(self, trial: str, status: Status) -> None:
        """Close the run of a trial."""
        self._end(trial, status)

    def finish(self, status: Status, timeout_s: float = 60) -> Delivery:
        """Close the parent run and wait up to ``timeout_s`` seconds for the delivery.

        The open runs of trials end with the status of a search that fails or is stopped: nothing
        else would close them if it is never resumed. A trial that resumes opens its run again.
        """
        if status != "FINISHED":
            for trial, records in self.trials().items():
                if records.open:
                    # A resumed search has to tell it from a trial that ended.
                    self._end(trial, status, unfinished=True)
        self._end(None, status)
        self._finishing.set()
        self._new.set()
        self._thread.join(timeout_s)
        self._stop.set()
        self._new.set()  # The thread may wait for records; it ends and frees the spool.
        return self._courier.summary(self._problem)

    def run_id(self, trial: str | None) -> str | None:
        """Return MLflow's id of a run; ``None`` until the run is delivered."""
        return self._courier.run_id(trial)

    def experiment_id(self) -> str | None:
        """Return MLflow's id of the experiment; ``None`` until a run in it is delivered."""
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

    def _end(self, trial: str | None, status: Status, unfinished: bool = False) -> None:
        self._append(
            {
                "kind": "end",
                "trial": trial,
                "status": status,
                "unfinished": unfinished,
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
            self._journal.append(record)
        self._new.set()

    def _run(self) -> None:
        delay = _FIRST_RETRY_S
        try:
            while not self._stop.is_set():
                self._new.clear()
                try:
                    self._courier.deliver(self._stop)
                except Exception as error:
                    # No error of MLflow may end the delivery of later records.
                    self._failed(error)
                    if self._finishing.is_set():
                        self._stop.wait(min(delay, _RETRY_WHILE_FINISHING_S))
                    else:
                        self._finishing.wait(delay)
                    delay = min(2 * delay, _LAST_RETRY_S)
                    continue
                self._succeeded()
                delay = _FIRST_RETRY_S
                if self._stop.is_set():
                    return
                if self._finishing.is_set() and not self._courier.pending():
                    return
                self._new.wait()
        finally:
            self._lock.release()

    def _failed(self, error: Exception) -> None:
        if self._problem is None:
            _logger.warning(
                "%s; the search continues and keeps its results in %s until they can be delivered",
                in_one_line(error, self._settings.uri),
                self._settings.spool,
            )
        self._problem = in_one_line(error, self._settings.uri)

    def _succeeded(self) -> None:
        if self._problem is not None:
            _logger.warning("MLflow is back: %s", redact(self._settings.uri))
        self._problem = None


class NullRecorder:
    """Discards all records; reports that are rebuilt use it, since MLflow has them already."""

    def start_search(
        self,
        name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        experiment_tags: Mapping[str, str] | None = None,
    ) -> None:
        """Do nothing."""

    def start_trial(
        self, trial: str, name: str, params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Do nothing."""

    def trials(self) -> dict[str, TrialRecords]:
        """Return no trials."""
        return {}

    def log_metrics(self, trial: str | None, metrics: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def set_tags(self, trial: str | None, tags: Mapping[str, str]) -> None:
        """Do nothing."""

    def log_artifact(self, trial: str | None, path: Path, folder: str | None = None) -> None:
        """Do nothing."""

    def log_text(self, trial: str | None, text: str, file_name: str) -> None:
        """Do nothing."""

    def end_trial(self, trial: str, status: Status) -> None:
        """Do nothing."""

    def finish(self, status: Status, timeout_s: float = 60) -> Delivery:
        """Return that nothing was delivered and nothing is pending."""
        return Delivery(0, 0, None)

    def run_id(self, trial: str | None) -> str | None:
        """Return ``None``: there is no run."""
        return None

    def experiment_id(self) -> str | None:
        """Return ``None``: there is no experiment."""
        return None


def _cut(values: Mapping[str, str], limit: int) -> dict[str, str]:
    texts = {name: str(value) for name, value in values.items()}
    return {n: t if len(t) <= limit else t[: limit - 1] + "…" for n, t in texts.items()}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
