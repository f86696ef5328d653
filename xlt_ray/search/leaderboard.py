"""The result of a search: which configuration transfers best, and the table that says so."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xlt_ray.names import BASELINE, OBJECTIVE
from xlt_ray.search.ledger import Record
from xlt_ray.search.trials import BASELINES

Status = Literal["finished", "pruned", "failed", "interrupted"]


@dataclass(frozen=True)
class Entry:
    """One trial."""

    label: str
    """Its name in the search."""
    status: Status
    """`pruned`: stopped early by ASHA; only `finished` trials have test scores and a rank."""
    values: Mapping[str, Any]
    """Its values of the searched keys."""
    objective: float | None
    """Dev objective of its selected checkpoint, in [0, 1]."""
    test: Mapping[str, float]
    """Test metrics of that checkpoint, without the prefix `test/`."""
    selected: Mapping[str, float]
    """Dev metrics of that checkpoint, without the prefix `selected/`."""
    seconds: Mapping[str, float]
    """`training`, `evaluation` and `total` wall time."""
    checkpoint: str | None = None
    """Path of its last checkpoint in the storage: a finished trial's selected model."""
    reason: str = ""
    """Why it failed."""
    rank: int | None = None
    """From 1, among the finished trials of the search; the baselines have none."""


def entry_of(record: Record) -> Entry:
    """Make an entry of what a trial did."""
    config, metrics = dict(record.config), record.metrics

    def section(prefix: str) -> dict[str, float]:
        return {
            name.removeprefix(prefix): float(value)
            for name, value in metrics.items()
            if name.startswith(prefix)
        }

    return Entry(
        label=config.pop("label"),
        status="interrupted" if record.status == "running" else record.status,
        values=config,
        objective=metrics.get(OBJECTIVE),
        test=section("test/"),
        selected=section("selected/"),
        seconds={
            "total": record.seconds,
            **{
                name.removesuffix("_seconds"): value
                for name, value in section("time/").items()
                if name.endswith("_seconds")
            },
        },
        checkpoint=metrics.get("checkpoint_path"),
        reason=record.reason,
    )


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """Order trials: the finished by objective, then the baselines, the pruned and the failed."""

    def order(entry: Entry) -> tuple[float, float]:
        group: float = ("finished", "pruned", "interrupted", "failed").index(entry.status)
        if entry.label in BASELINES and group == 0:
            group = 0.5
        return 2 * group, -(entry.objective if entry.objective is not None else -1.0)

    result = []
    rank = 0
    for entry in sorted(entries, key=order):
        if entry.status == "finished" and entry.label not in BASELINES:
            rank += 1
            entry = Entry(**{**entry.__dict__, "rank": rank})
        result.append(entry)
    return result


def best(entries: Sequence[Entry]) -> Entry | None:
    """The first-ranked trial; None if none finished."""
    return next((entry for entry in entries if entry.rank == 1), None)


def baseline(entries: Sequence[Entry]) -> Entry | None:
    """The finished trial of plain fine-tuning, if there is one."""
    found = (entry for entry in entries if entry.label == BASELINE and entry.status == "finished")
    return next(found, None)


def write(entries: Sequence[Entry], folder: Path, name: str = "leaderboard") -> list[Path]:
    """Write trials as `<name>.csv` and `<name>.json` into a folder; return their paths."""
    rows = [
        {
            "rank": entry.rank,
            "trial": entry.label,
            "status": entry.status,
            "reason": entry.reason,
            **entry.values,
            "objective": entry.objective,
            **{f"test/{name}": value for name, value in entry.test.items()},
            **{f"selected/{name}": value for name, value in entry.selected.items()},
            **{f"seconds/{name}": value for name, value in entry.seconds.items()},
        }
        for entry in entries
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    as_csv, as_json = folder / f"{name}.csv", folder / f"{name}.json"
    with as_csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    as_json.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [as_csv, as_json]
