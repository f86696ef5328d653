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

import errno
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from xlt_ray.errors import UserError
from xlt_ray.tracking.client import absolute, in_one_line, local_path, open_client, redact

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]

RUN_KEY_TAG = "xlt_ray.run_key"
"""Tag that identifies a run independently of the id that MLflow gives it."""

_PARENT_TAG = "mlflow.parentRunId"
# Says that it is of training runs, not of traces.
_EXPERIMENT_KIND_TAG = "mlflow.experimentKind"

# MLflow refuses longer values and larger requests.
_MAX_PARAM_CHARS = 6000
_MAX_TAG_CHARS = 5000
_MAX_METRICS_PER_CALL = 1000
_MAX_PARAMS_OR_TAGS_PER_CALL = 100

_MAX_RECORDS_PER_BATCH = 1000
_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 30.0
_RETRY_WHILE_FINISHING_S = 2.0
_LOCK_LIMIT_S = 10.0

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
class Delivery:
    """What became of the records of a spool.

    Attributes:
        delivered: Records that were delivered by this recorder or this call.
        pending: Records that are still only in the spool.
        problem: Why records are pending, or what MLflow refused, in one line without
            credentials; ``None`` if all is well.
    """

    delivered: int
    pending: int
    problem: str | None


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
        self._lock = _lock_spool(settings.spool, limit_s=0)
        _drop_torn_line(self._journal)
        self._journal.touch()
        self._courier = _Courier(settings.spool, settings.uri)
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
        for _, record in _lines(self._journal, 0):
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
            _append_line(self._journal, record)
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


def deliver(spool: Path, uri: str) -> Delivery:
    """Deliver what an earlier search could not.

    Each record arrives once, however often this is called or interrupted.

    Args:
        spool: Spool folder of the search.
        uri: MLflow tracking URI of the search (its server may have moved).

    Returns:
        What was delivered by this call and what is left.

    Raises:
        UserError: The folder is not a spool, or the search is still running.
    """
    if not (spool / "journal.jsonl").is_file():
        raise UserError(f"{spool}: no journal.jsonl here; give the spool folder of a search")
    lock = _lock_spool(spool, _LOCK_LIMIT_S)
    try:
        courier = _Courier(spool, uri)
        try:
            courier.deliver(threading.Event())
        except Exception as error:
            return courier.summary(in_one_line(error, uri))
        return courier.summary(None)
    finally:
        lock.release()


class _Courier:
    """Carries the records of a spool to MLflow, in order. The caller holds the spool's lock."""

    def __init__(self, spool: Path, uri: str) -> None:
        self._spool = spool
        self._uri = absolute(uri)
        self._journal = spool / "journal.jsonl"
        self._receipts = spool / "delivered.jsonl"
        self._client: MlflowClient | None = None
        self._experiments: dict[str, str] = {}
        self._runs: dict[str | None, str] = {}
        self._queue: deque[dict[str, Any]] = deque()
        self._read_bytes = 0
        self._through = 0
        self._postponed: dict[int, dict[str, Any]] = {}
        self._refusals: list[str] = []
        self._delivered = 0
        # An earlier delivery may have ended between MLflow's acceptance and the receipt.
        self._interrupted = True
        self._load()

    def _load(self) -> None:
        _drop_torn_line(self._receipts)
        postponed: set[int] = set()
        if self._receipts.exists():
            for _, receipt in _lines(self._receipts, 0):
                match receipt:
                    case {"trial": trial, "run_id": run_id}:
                        self._runs[trial] = run_id
                    case {"through": through}:
                        self._through = through
                    case {"postponed": position}:
                        postponed.add(position)
                    case {"arrived": position}:
                        postponed.discard(position)
        self._read()
        # A machine that lost power may have kept the receipts but not the end of the journal.
        self._through = min(self._through, len(self._queue))
        for position in range(self._through):
            record = self._queue.popleft()
            if position in postponed:
                self._postponed[position] = record

    def pending(self) -> int:
        """Count the records of the journal that MLflow has not accepted."""
        with self._journal.open("rb") as journal:
            written = sum(block.count(b"\n") for block in iter(lambda: journal.read(1 << 20), b""))
        return written - self._through + len(self._postponed)

    def run_id(self, trial: str | None) -> str | None:
        """MLflow's id of a run; None: not delivered."""
        return self._runs.get(trial)

    def experiment_id(self, name: str) -> str | None:
        """MLflow's id of an experiment; None: nothing of it was delivered by this courier."""
        return self._experiments.get(name)

    def summary(self, problem: str | None) -> Delivery:
        """Tell what was delivered; ``problem`` is why the last attempt failed."""
        pending = self.pending()
        if pending and problem is None:
            problem = f"no time was left to deliver to {redact(self._uri)}"
        if problem is None and self._refusals:
            problem = f"MLflow refused {len(self._refusals)} values, e.g. {self._refusals[0]}"
        return Delivery(self._delivered, pending, problem)

    def deliver(self, stop: threading.Event) -> None:
        """Deliver all that is in the journal, unless stopped between two batches.

        Raises:
            Exception: Whatever MLflow raises when it cannot be reached or written; may be called
                again.
        """
        try:
            self._read()
            while self._queue and not stop.is_set():
                batch = self._next_batch()
                self._send(batch)
                self._accepted(len(batch))
                self._read()
            for position, record in list(self._postponed.items()):
                if stop.is_set():
                    return
                self._send_artifact(record)
                self._receipt({"arrived": position})
                del self._postponed[position]
                self._delivered += 1
        except Exception:
            self._interrupted = True
            raise

    def _read(self) -> None:
        for end, record in _lines(self._journal, self._read_bytes):
            self._queue.append(record)
            self._read_bytes = end

    def _next_batch(self) -> list[dict[str, Any]]:
        """Take from the head what can be sent together: metrics and tags, or one other record."""
        batch: list[dict[str, Any]] = []
        for record in self._queue:
            if record["kind"] not in ("metrics", "tags"):
                return batch or [record]
            batch.append(record)
            if len(batch) == _MAX_RECORDS_PER_BATCH:
                break
        return batch

    def _accepted(self, count: int) -> None:
        self._receipt({"through": self._through + count})
        for _ in range(count):
            self._queue.popleft()
        self._through += count
        self._delivered += count
        self._interrupted = False

    def _receipt(self, receipt: dict[str, Any]) -> None:
        _append_line(self._receipts, receipt)

    def _send(self, batch: list[dict[str, Any]]) -> None:
        match batch[0]["kind"]:
            case "start":
                self._send_start(batch[0])
            case "end":
                self._send_end(batch[0])
            case "artifact":
                self._send_or_postpone(batch[0])
            case _:
                for trial in dict.fromkeys(record["trial"] for record in batch):
                    self._send_values(trial, [r for r in batch if r["trial"] == trial])

    def _send_start(self, record: dict[str, Any]) -> None:
        from mlflow.entities import Param, RunTag

        trial, client = record["trial"], self._connected()
        if trial in self._runs:
            client.update_run(self._runs[trial], status="RUNNING")
        else:
            self._runs[trial] = self._find_or_create_run(record)
            self._receipt({"trial": trial, "run_id": self._runs[trial]})
        self._log_batches(
            self._runs[trial],
            params=[Param(name, value) for name, value in record["params"].items()],
            tags=[RunTag(name, value) for name, value in record["tags"].items()],
        )
        for name, value in record.get("experiment_tags", {}).items():
            client.set_experiment_tag(self._experiment(record["experiment"]), name, value)

    def _find_or_create_run(self, record: dict[str, Any]) -> str:
        from mlflow.entities import ViewType

        client = self._connected()
        experiment = self._experiment(record["experiment"])
        found = client.search_runs(
            [experiment],
            f"tags.`{RUN_KEY_TAG}` = '{record['run_key']}'",
            run_view_type=ViewType.ALL,
            max_results=1,
        )
        if found:
            return str(found[0].info.run_id)
        tags = {RUN_KEY_TAG: record["run_key"]}
        if record["trial"] is not None and None in self._runs:
            tags[_PARENT_TAG] = self._runs[None]
        run = client.create_run(
            experiment, start_time=record["time_ms"], tags=tags, run_name=record["name"]
        )
        return str(run.info.run_id)

    def _experiment(self, name: str) -> str:
        """Return the id of an experiment, which is created if there is none."""
        from mlflow.exceptions import MlflowException

        if name not in self._experiments:
            client = self._connected()
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                artifacts = None
                if self._uri.startswith("sqlite"):
                    artifacts = (local_path(self._uri).parent / "artifacts").as_uri()
                try:
                    self._experiments[name] = client.create_experiment(
                        name, artifacts, tags={_EXPERIMENT_KIND_TAG: "custom_model_development"}
                    )
                except MlflowException as error:
                    # Another process may have created it meanwhile.
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    return self._experiment(name)
            elif experiment.lifecycle_stage == "deleted":
                raise UserError(
                    f"the MLflow experiment '{name}' was deleted; restore it: "
                    f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
                )
            else:
                self._experiments[name] = experiment.experiment_id
        return self._experiments[name]

    def _send_end(self, record: dict[str, Any]) -> None:
        from mlflow.exceptions import MlflowException

        if record["trial"] not in self._runs:
            self._refuse(f"the end of '{record['trial']}': it was never started")
            return
        try:
            self._connected().set_terminated(
                self._runs[record["trial"]], record["status"], record["time_ms"]
            )
        except MlflowException as error:
            if not _is_refusal(error):
                raise
            self._refuse(f"the end of '{record['trial']}': {in_one_line(error, self._uri)}")

    def _send_or_postpone(self, record: dict[str, Any]) -> None:
        """Send an artifact, or set it aside: its store can fail where the metrics' store works."""
        try:
            self._send_artifact(record)
        except Exception as error:
            _logger.debug("artifact postponed: %s", in_one_line(error, self._uri))
            self._receipt({"postponed": self._through})
            self._postponed[self._through] = record
            self._delivered -= 1

    def _send_artifact(self, record: dict[str, Any]) -> None:
        if record["trial"] not in self._runs:
            self._refuse(f"{record['file']} of '{record['trial']}': it was never started")
            return
        copy, run_id = self._spool / record["file"], self._runs[record["trial"]]
        if not copy.exists():
            # Delivered already: the copy is deleted before the receipt is written.
            return
        # Sent by the folder around it, so that a file and a folder arrive alike.
        self._connected().log_artifacts(run_id, str(copy.parent), record["folder"])
        shutil.rmtree(copy.parent)

    def _send_values(self, trial: str | None, records: Sequence[dict[str, Any]]) -> None:
        from mlflow.entities import Metric, RunTag

        if trial not in self._runs:
            self._refuse(f"{len(records)} records of '{trial}': it was never started")
            return
        metrics, tags = [], {}
        for record in records:
            if record["kind"] == "tags":
                tags.update(record["tags"])
                continue
            metrics += [
                Metric(name, value, record["time_ms"], record["step"])
                for name, value in record["metrics"].items()
            ]
        if self._interrupted:
            metrics = self._not_in_history(self._runs[trial], metrics)
        self._log_batches(
            self._runs[trial],
            metrics=metrics,
            tags=[RunTag(name, value) for name, value in tags.items()],
        )

    def _not_in_history(self, run_id: str, metrics: list[Metric]) -> list[Metric]:
        client = self._connected()

        def identity(metric: Metric) -> tuple[str, int, int, str]:
            # As text, since a NaN differs from itself.
            return metric.key, metric.step, metric.timestamp, repr(metric.value)

        known = {
            identity(metric)
            for name in {metric.key for metric in metrics}
            for metric in client.get_metric_history(run_id, name)
        }
        return [metric for metric in metrics if identity(metric) not in known]

    def _log_batches(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> None:
        for some in _chunks(metrics, _MAX_METRICS_PER_CALL):
            self._log_batch(run_id, "metrics", some)
        for some in _chunks(params, _MAX_PARAMS_OR_TAGS_PER_CALL):
            self._log_batch(run_id, "params", some)
        for some in _chunks(tags, _MAX_PARAMS_OR_TAGS_PER_CALL):
            self._log_batch(run_id, "tags", some)

    def _log_batch(self, run_id: str, what: str, values: Sequence[Any]) -> None:
        """Log values; those that MLflow refuses are left out, as they would be for ever."""
        from mlflow.exceptions import MlflowException

        try:
            self._connected().log_batch(run_id, **{what: values}, synchronous=True)
        except MlflowException as error:
            if not _is_refusal(error):
                raise
            if len(values) == 1:
                self._refuse(f"{what} '{values[0].key}': {in_one_line(error, self._uri)}")
                return
            for value in values:
                self._log_batch(run_id, what, [value])

    def _refuse(self, what: str) -> None:
        self._receipt({"refused": what})
        self._refusals.append(what)

    def _connected(self) -> MlflowClient:
        if self._client is None:
            self._client = open_client(self._uri)
        return self._client


def _is_refusal(error: Exception) -> bool:
    """Tell whether MLflow would refuse the same request for ever."""
    return getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE"


def _lock_spool(spool: Path, limit_s: float) -> FileLock:
    # Taken by one thread and released by another.
    lock = FileLock(spool / "lock", timeout=limit_s, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{spool}: a running search or delivery is using this spool") from error
    return lock


def _cut(values: Mapping[str, str], limit: int) -> dict[str, str]:
    texts = {name: str(value) for name, value in values.items()}
    return {n: t if len(t) <= limit else t[: limit - 1] + "…" for n, t in texts.items()}


def _chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _append_line(path: Path, record: dict[str, Any]) -> None:
    line = json.dumps(record).encode() + b"\n"
    with path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if file.write(line) != len(line):
            # Half a line would spoil the next one.
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _lines(path: Path, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the complete lines from a byte on: the byte after each, and its record."""
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            yield start, json.loads(line)


def _drop_torn_line(path: Path) -> None:
    """Remove a last line that was not written to its end."""
    if path.exists():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
