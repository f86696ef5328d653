"""Deliver the records of a spool to MLflow, once and in order; the recorder calls it."""

from __future__ import annotations

import logging
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from xlt_ray.errors import UserError
from xlt_ray.journal import Journal
from xlt_ray.tracking.client import deleted_experiment, in_one_line, open_client
from xlt_ray.tracking.uri import absolute, local_path, redact

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, Run, RunTag
    from mlflow.tracking import MlflowClient


_logger = logging.getLogger(__name__)

RUN_KEY_TAG = "xlt_ray.run_key"
"""Tag that identifies a run independently of the id that MLflow gives it."""

_PARENT_TAG = "mlflow.parentRunId"
# Marks an experiment as one of training runs, not of traces.
_EXPERIMENT_KIND_TAG = "mlflow.experimentKind"
_MAX_METRICS_PER_CALL = 1000
_MAX_PARAMS_OR_TAGS_PER_CALL = 100

_MAX_RECORDS_PER_BATCH = 1000

_UNKNOWN_RUN = "RESOURCE_DOES_NOT_EXIST"
"""MLflow's error code for a run that its store does not have."""


@dataclass(frozen=True)
class Delivery:
    """State of the records of a spool.

    Attributes:
        delivered: Number of records that this recorder delivered.
        pending: Number of records that are only in the spool.
        problem: Why records are pending, or which values MLflow refused, in one line without
            credentials; ``None`` for no problem.
    """

    delivered: int
    pending: int
    problem: str | None


class Courier:
    """Sends the records of a spool to MLflow, in order. The caller holds the spool's lock.

    Args:
        spool: Spool folder.
        uri: MLflow tracking URI.
    """

    def __init__(self, spool: Path, uri: str) -> None:
        self._spool = spool
        self._uri = absolute(uri)
        self._journal = Journal(spool / "journal.jsonl")
        self._receipts = Journal(spool / "delivered.jsonl")
        self._client: MlflowClient | None = None
        self._experiments: dict[str, str] = {}
        self._runs: dict[str | None, str] = {}
        # The names of the experiments that the runs were recorded in.
        self._asked: dict[str | None, str] = {}
        self._queue: deque[dict[str, Any]] = deque()
        self._read_bytes = 0
        self._through = 0
        self._postponed: dict[int, dict[str, Any]] = {}
        self._refusals: list[str] = []
        self._delivered = 0
        # An earlier delivery may have stopped after MLflow's acceptance but before the receipt.
        self._interrupted = True
        self._load()

    def _load(self) -> None:
        self._receipts.drop_torn_line()
        postponed: set[int] = set()
        for _, receipt in self._receipts.read():
            match receipt:
                case {"trial": trial, "run_id": run_id}:
                    self._runs[trial] = run_id
                    # Earlier versions did not write the experiment down.
                    if "experiment" in receipt:
                        self._asked[trial] = receipt["experiment"]
                case {"through": through}:
                    self._through = through
                case {"postponed": position}:
                    postponed.add(position)
                case {"arrived": position}:
                    postponed.discard(position)
        self._read()
        # After a power loss, the receipts may be on disk while the end of the journal is not.
        self._through = min(self._through, len(self._queue))
        for position in range(self._through):
            record = self._queue.popleft()
            if position in postponed:
                self._postponed[position] = record

    def pending(self) -> int:
        """Count the records of the journal that MLflow has not accepted."""
        with self._journal.file.open("rb") as journal:
            written = sum(block.count(b"\n") for block in iter(lambda: journal.read(1 << 20), b""))
        return written - self._through + len(self._postponed)

    def run_id(self, trial: str | None) -> str | None:
        """Return MLflow's id of a run; None if the run is not delivered."""
        return self._runs.get(trial)

    def experiment_id(self, name: str) -> str | None:
        """Return MLflow's id of an experiment; None before this courier delivers a run of it."""
        return self._experiments.get(name)

    def summary(self, problem: str | None) -> Delivery:
        """Return the state of the records; ``problem`` is why the last attempt failed."""
        pending = self.pending()
        if pending and problem is None:
            problem = f"no time was left to deliver to {redact(self._uri)}"
        if problem is None and self._refusals:
            problem = f"MLflow refused {len(self._refusals)} values, e.g. {self._refusals[0]}"
        return Delivery(self._delivered, pending, problem)

    def deliver(self, stop: threading.Event) -> None:
        """Deliver the journal's records, in batches, until `stop` is set.

        Raises:
            Exception: Any error of MLflow, e.g. when it cannot be reached; the caller may retry.
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
        for end, record in self._journal.read(self._read_bytes):
            self._queue.append(record)
            self._read_bytes = end

    def _next_batch(self) -> list[dict[str, Any]]:
        """Return the first records that one request can send: metrics and tags, or one other."""
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
        self._receipts.append(receipt)

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
        experiment = record["experiment"]
        # By name, as it was asked for: an experiment that was renamed in MLflow is the same.
        moved = self._asked.get(trial, experiment) != experiment
        run = None if moved else self._known_run(trial)
        run = run or self._find_or_create_run(record)
        run_id = run.info.run_id
        if run.info.lifecycle_stage == "deleted":
            # The search goes on in this run, and MLflow refuses all values of a deleted run.
            client.restore_run(run_id)
        if run.info.status != "RUNNING":
            client.update_run(run_id, status="RUNNING")
        if self._runs.get(trial) != run_id:
            self._runs[trial], self._asked[trial] = run_id, experiment
            self._receipt({"trial": trial, "run_id": run_id, "experiment": experiment})
        self._log_batches(
            run_id,
            # MLflow never changes a parameter, and refuses a whole batch that has another value.
            params=[
                Param(name, value)
                for name, value in record["params"].items()
                if name not in run.data.params
            ],
            tags=[RunTag(name, value) for name, value in record["tags"].items()],
        )
        for name, value in record.get("experiment_tags", {}).items():
            client.set_experiment_tag(self._experiment(record["experiment"]), name, value)

    def _known_run(self, trial: str | None) -> Run | None:
        """Return a delivered run; None if it is not delivered or the store does not have it."""
        from mlflow.exceptions import MlflowException

        if trial not in self._runs:
            return None
        try:
            return self._connected().get_run(self._runs[trial])
        except MlflowException as error:
            if error.error_code != _UNKNOWN_RUN:
                raise
            # It was removed for good, or the search resumes with another store.
            _logger.warning(
                "run %s is not in %s; a new run has the records from now on",
                self._runs[trial],
                redact(self._uri),
            )
            return None

    def _find_or_create_run(self, record: dict[str, Any]) -> Run:
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
            return found[0]
        tags = {RUN_KEY_TAG: record["run_key"]}
        if record["trial"] is not None and None in self._runs:
            tags[_PARENT_TAG] = self._runs[None]
        return client.create_run(
            experiment, start_time=record["time_ms"], tags=tags, run_name=record["name"]
        )

    def _experiment(self, name: str) -> str:
        """Return the id of an experiment; create it if it does not exist."""
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
                    # Another process may have created it in the meantime.
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                    return self._experiment(name)
            elif experiment.lifecycle_stage == "deleted":
                raise UserError(deleted_experiment(name, experiment.experiment_id, self._uri))
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
        """Send an artifact, or postpone it: the artifact store can fail while metrics work."""
        try:
            self._send_artifact(record)
        except Exception as error:
            _logger.debug("artifact postponed: %s", in_one_line(error, self._uri))
            self._receipt({"postponed": self._through})
            self._postponed[self._through] = record
            self._delivered -= 1

    def _send_artifact(self, record: dict[str, Any]) -> None:
        from mlflow.exceptions import MlflowException

        if record["trial"] not in self._runs:
            self._refuse(f"{record['file']} of '{record['trial']}': it was never started")
            return
        copy, run_id = self._spool / record["file"], self._runs[record["trial"]]
        if not copy.exists():
            # Delivered already: the copy is deleted before the receipt is written.
            return
        try:
            # Sending the enclosing folder works for files and folders alike.
            self._connected().log_artifacts(run_id, str(copy.parent), record["folder"])
        except MlflowException as error:
            if error.error_code != _UNKNOWN_RUN:
                raise
            self._refuse(
                f"{record['file']} of '{record['trial']}': {in_one_line(error, self._uri)}"
            )
            return
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
        from mlflow.exceptions import MlflowException

        client = self._connected()

        def identity(metric: Metric) -> tuple[str, int, int, str]:
            # As text, since NaN differs from itself.
            return metric.key, metric.step, metric.timestamp, repr(metric.value)

        known: set[tuple[str, int, int, str]] = set()
        for name in {metric.key for metric in metrics}:
            try:
                known.update(map(identity, client.get_metric_history(run_id, name)))
            except MlflowException as error:
                # A folder refuses to read what it refuses to write; writing reports it.
                if not _is_refusal(error):
                    raise
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
        """Log values, without those that MLflow refuses permanently."""
        from mlflow.exceptions import MlflowException

        try:
            self._connected().log_batch(run_id, **{what: values}, synchronous=True)
        except MlflowException as error:
            if not _is_refusal(error):
                raise
            if len(values) == 1:
                self._refuse(f"{what} '{values[0].key}': {in_one_line(error, self._uri)}")
                return
            if error.error_code == _UNKNOWN_RUN:
                self._refuse(f"{len(values)} {what}: {in_one_line(error, self._uri)}")
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
    """Tell whether MLflow would refuse the same request again."""
    return getattr(error, "error_code", None) in ("INVALID_PARAMETER_VALUE", _UNKNOWN_RUN)


def lock_spool(spool: Path) -> FileLock:
    """Lock a spool for one recorder, without waiting.

    Args:
        spool: Spool folder.

    Raises:
        UserError: If another process holds the lock.
    """
    # One thread acquires the lock, another one releases it.
    lock = FileLock(spool / "lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{spool}: a running search is using this spool; wait until it ends"
        ) from error
    return lock


def _chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))
