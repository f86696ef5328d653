"""The ledger: a file of what each trial of a search did, from which an interrupted search resumes.

Each start, evaluation and end of a trial is one line of JSON, written before MLflow gets it. A
resumed search reads the file: trials that ended are not run again, the pruner gets its rungs back,
and no evaluation is recorded twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xlt_ray.files import finite, with_nan
from xlt_ray.journal import Journal
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.trials import Trial, TrialStatus
from xlt_ray.training.faults import FailureKind, recorded_kind

_RUNG_KEYS = ("evaluations", "step", "steps", OBJECTIVE)


def is_tested(metrics: Mapping[str, Any]) -> bool:
    """Return whether metrics are those of a test evaluation, the last step of a finished trial."""
    return "test/accuracy/mean" in metrics


@dataclass
class Record:
    """What one trial did."""

    trial: Trial
    """The configuration."""
    status: TrialStatus = TrialStatus.RUNNING
    """`running` in a search that does not run: the trial was interrupted."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Metrics of its last evaluation."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """Number, step, total steps and objective of each evaluation."""
    reason: str = ""
    """Why it failed: the error in one line."""
    failure: FailureKind | None = None
    """The kind of its failure; None unless it failed."""
    earlier_seconds: float = 0.0
    """Wall time of its attempts before the last one."""

    @property
    def seconds(self) -> float:
        """Wall time of all its attempts."""
        return self.earlier_seconds + float(self.metrics.get("time_total_s", 0.0))

    @property
    def ended(self) -> bool:
        """Whether a resumed search has nothing to run. A failure that the configuration causes
        would occur again; a lost machine may not."""
        ended = self.status in (TrialStatus.FINISHED, TrialStatus.PRUNED)
        return ended or self.failure is FailureKind.OUTCOME


class Ledger:
    """The records of a search's trials, by label.

    Args:
        file: The file; created if there is none. One process at a time may use it.
        clock: Returns seconds from any origin.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.records: dict[str, Record] = {}
        self.search: dict[str, Any] | None = None
        """The search as it was started or last resumed; None: not started."""
        self.inputs: dict[str, str] | None = None
        """Fingerprints of what its trials read, such as data files; None: not recorded."""
        self.changed_inputs: dict[str, None] = {}
        """The inputs that changed after a trial had started, in order."""
        self.changed_searches: list[tuple[dict[str, Any], dict[str, Any]]] = []
        """The searches before and after each change that came after a trial had started."""
        self.history: list[tuple[str, dict[str, Any]]] = []
        """All evaluations in their order: the label, and an item of `Record.evaluations`."""
        self._journal = Journal(file, default=str)
        self._journal.drop_torn_line()
        self._clock = clock
        self._began: float | None = None
        self._earlier = 0.0
        for _, event in self._journal.read():
            self._earlier = event.get("elapsed", self._earlier)
            if "metrics" in event:
                event["metrics"] = with_nan(event["metrics"])
            self._enter(event)

    @property
    def elapsed(self) -> float:
        """Seconds that the search ran, up to the last event of each run that was interrupted."""
        return self._earlier + (0.0 if self._began is None else self._clock() - self._began)

    def begin(self, search: Mapping[str, Any], inputs: Mapping[str, str] | None = None) -> None:
        """Record that the search starts or resumes.

        Args:
            search: Its spec.
            inputs: Fingerprints of what its trials read, by name; None: unknown.
        """
        self._began = self._clock()
        if search != self.search or (inputs and inputs != self.inputs):
            event: dict[str, Any] = {"search": dict(search)}
            self._write(event | ({"inputs": dict(inputs)} if inputs else {}))

    def start(self, trial: Trial) -> None:
        """Record that a trial starts or resumes."""
        self._write({"trial": trial.label, "config": trial.to_config()})

    def evaluated(self, label: str, metrics: Mapping[str, Any]) -> bool:
        """Record a trial's report; return whether it is a new evaluation."""
        record = self.records[label]
        known = record.evaluations
        # The last one counts even if a forced change of the search leaves fewer before it.
        last = is_tested(metrics) and not is_tested(record.metrics)
        if known and metrics["evaluations"] <= known[-1]["evaluations"] and not last:
            return False
        if not metrics["evaluations"]:
            return False
        self._write({"trial": label, "metrics": dict(metrics)})
        return True

    def end(
        self, label: str, status: TrialStatus, reason: str = "", failure: FailureKind | None = None
    ) -> None:
        """Record that a trial ended.

        Args:
            label: The trial.
            status: How it ended.
            reason: Why it failed: the error in one line.
            failure: The kind of its failure; None: the reason tells it.
        """
        event = {"trial": label, "status": status, "reason": reason}
        self._write(event if failure is None else event | {"failure": failure})

    def _write(self, event: dict[str, Any]) -> None:
        if self._began is not None:
            event = event | {"elapsed": round(self.elapsed, 1)}
        self._journal.append(finite(event))
        self._enter(event)

    def _enter(self, event: dict[str, Any]) -> None:
        if "search" in event:
            if self.records and self.search is not None:
                self.changed_searches.append((self.search, event["search"]))
            self.search = event["search"]
            self._enter_inputs(event.get("inputs"))
            return
        label = event["trial"]
        if "config" in event:
            before = self.records.get(label)
            record = Record(Trial.from_config(event["config"]))
            if before is not None and before.trial == record.trial:
                before.status, before.reason, before.failure = TrialStatus.RUNNING, "", None
                before.earlier_seconds = before.seconds
                before.metrics.pop("time_total_s", None)
                return
            self.records[label] = record
        elif "metrics" in event:
            record = self.records[label]
            record.metrics = event["metrics"]
            record.evaluations.append({key: event["metrics"][key] for key in _RUNG_KEYS})
            self.history.append((label, record.evaluations[-1]))
            if is_tested(record.metrics):
                record.status = TrialStatus.FINISHED
        else:
            record = self.records[label]
            record.status, record.reason = TrialStatus(event["status"]), event["reason"]
            failed = record.status == TrialStatus.FAILED
            record.failure = recorded_kind(event.get("failure"), record.reason) if failed else None

    def _enter_inputs(self, inputs: dict[str, str] | None) -> None:
        if inputs is None:
            return
        if self.records and self.inputs is not None:
            self.changed_inputs |= dict.fromkeys(changed_inputs(self.inputs, inputs))
        self.inputs = inputs


def changed_inputs(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the names of the inputs that were added, removed or changed.

    Args:
        before: Fingerprints by name.
        after: The same at another time.
    """
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


def begun_inputs(file: Path) -> dict[str, str] | None:
    """Return the inputs that a ledger's search last started with, without changing the file.

    Args:
        file: The ledger.

    Returns:
        Fingerprints by name; None: not recorded, or no trial has started.
    """
    events = [event for _, event in Journal(file).read()]
    if not any("trial" in event for event in events):
        return None
    recorded: list[dict[str, str]] = [event["inputs"] for event in events if "inputs" in event]
    return recorded[-1] if recorded else None


def begun(file: Path) -> dict[str, Any] | None:
    """Return the spec of a ledger's search without changing the file, which may be in use.

    Args:
        file: The ledger.

    Returns:
        The search as it was started or last resumed; None: not started.
    """
    searches = [event["search"] for _, event in Journal(file).read() if "search" in event]
    return searches[-1] if searches else None
