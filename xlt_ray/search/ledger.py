"""What the trials of a search did, kept in a file so that nothing is lost with the process.

Each start, evaluation and end of a trial is one line of JSON, written before anything else learns
of it. A search that goes on reads them all: what had ended is not run again, the pruner gets back
its rungs, and an evaluation that was recorded before is not recorded twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from xlt_ray.names import OBJECTIVE
from xlt_ray.training.faults import is_outcome

Status = Literal["running", "finished", "pruned", "failed"]

_RUNG_KEYS = ("evaluations", "step", "steps", OBJECTIVE)


def is_tested(metrics: Mapping[str, Any]) -> bool:
    """Whether a trial's last metrics are those of the test data, so that it has finished."""
    return "test/accuracy/mean" in metrics


@dataclass
class Record:
    """One trial."""

    config: dict[str, Any]
    """Its label and its values of the searched keys."""
    status: Status = "running"
    """`running` of a search that is not: the trial was under way when it was interrupted."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Those of its last evaluation."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """Of each evaluation its number, step, steps in all and objective."""
    reason: str = ""
    """Why it failed."""
    earlier_seconds: float = 0.0
    """Wall time of its attempts before the last one."""

    @property
    def seconds(self) -> float:
        """Wall time of all its attempts."""
        return self.earlier_seconds + float(self.metrics.get("time_total_s", 0.0))

    @property
    def ended(self) -> bool:
        """Whether there is nothing to run any more. What failed for its own reasons would again;
        a lost machine may not be lost the next time."""
        return self.status in ("finished", "pruned") or is_outcome(self.reason)


class Ledger:
    """The records of a search's trials, by label.

    Args:
        file: Where they are kept; made if there is none. One process at a time may use it.
    """

    def __init__(self, file: Path) -> None:
        self.records: dict[str, Record] = {}
        self.search: dict[str, Any] | None = None
        """The search as it was begun, or last gone on with; None: not yet."""
        self.history: list[tuple[str, dict[str, Any]]] = []
        """All evaluations in the order they came: label, and as of `Record.evaluations`."""
        self._file = file
        if file.exists():
            lines = file.read_bytes().splitlines(keepends=True)
            if lines and not lines[-1].endswith(b"\n"):
                # The process ended within the line.
                with file.open("r+b") as content:
                    content.truncate(sum(map(len, lines[:-1])))
                del lines[-1]
            for line in lines:
                self._enter(json.loads(line))

    def begin(self, search: Mapping[str, Any]) -> None:
        """The search begins, or goes on, as it is now."""
        if search != self.search:
            self._write({"search": dict(search)})

    def start(self, label: str, config: Mapping[str, Any]) -> None:
        """A trial starts, or goes on."""
        self._write({"trial": label, "config": dict(config)})

    def evaluated(self, label: str, metrics: Mapping[str, Any]) -> bool:
        """A trial reports; returns whether it is an evaluation that was not known before."""
        known = self.records[label].evaluations
        if known and metrics["evaluations"] <= known[-1]["evaluations"]:
            return False
        if not metrics["evaluations"]:
            return False
        self._write({"trial": label, "metrics": dict(metrics)})
        return True

    def end(self, label: str, status: Status, reason: str = "") -> None:
        """A trial ended; with the reason where it failed."""
        self._write({"trial": label, "status": status, "reason": reason})

    def _write(self, event: dict[str, Any]) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, default=str) + "\n")
        self._enter(event)

    def _enter(self, event: dict[str, Any]) -> None:
        if "search" in event:
            self.search = event["search"]
            return
        label = event["trial"]
        if "config" in event:
            before = self.records.get(label)
            record = Record(event["config"])
            if before is not None and before.config == record.config:
                before.status, before.reason = "running", ""
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
                record.status = "finished"
        else:
            record = self.records[label]
            record.status, record.reason = event["status"], event["reason"]


def begun(file: Path) -> dict[str, Any] | None:
    """The search that a ledger is of, read without touching it: it may be in use.

    Args:
        file: The ledger.

    Returns:
        The search as it was begun, or last gone on with; None: not yet.
    """
    if not file.exists():
        return None
    with file.open("rb") as lines:
        events = (json.loads(line) for line in lines if line.endswith(b"\n"))
        searches = [event["search"] for event in events if "search" in event]
    return searches[-1] if searches else None
