"""The leaderboard: the trials of a search in their order, and its files. The pipeline writes it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xlt_ray.files import json_text, with_nan
from xlt_ray.names import BASELINE, OBJECTIVE
from xlt_ray.search.ledger import Ledger, Record
from xlt_ray.search.plan import SearchOutline
from xlt_ray.search.trials import Trial, TrialStatus

MEMBERS = "members"
"""Column of the files: the trials that a soup averages, separated by spaces."""
WARNING = "warning"
"""Column of the files: why the trials do not compare, where they do not."""

_ORDER = (
    TrialStatus.FINISHED,
    TrialStatus.PRUNED,
    TrialStatus.INTERRUPTED,
    TrialStatus.FAILED,
)


@dataclass(frozen=True)
class Entry:
    """One row of the leaderboard: a trial and its result."""

    trial: Trial
    """The configuration."""
    status: TrialStatus
    """Only `finished` trials have test scores and a rank."""
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
    """From 1, among the finished trials of the search, baselines and soups included."""
    members: tuple[str, ...] = ()
    """Labels of the trials whose weights a soup averages; empty for a single trial."""

    @property
    def label(self) -> str:
        """The trial's unique name in the search."""
        return self.trial.label

    @property
    def values(self) -> Mapping[str, Any]:
        """The trial's values of spec keys."""
        return self.trial.values


def entry_of(record: Record) -> Entry:
    """Return the entry of a recorded trial."""
    metrics = record.metrics

    def section(prefix: str) -> dict[str, float]:
        return {
            name.removeprefix(prefix): float(value)
            for name, value in metrics.items()
            if name.startswith(prefix)
        }

    return Entry(
        trial=record.trial,
        status=(TrialStatus.INTERRUPTED if record.status == TrialStatus.RUNNING else record.status),
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


def stage_records(ledger: Ledger, fixed: Sequence[Trial]) -> dict[str, Record]:
    """Return the records of a stage, by label: those of its fixed trials and of its proposals.

    Args:
        ledger: The stage's ledger; it may have fixed trials of an earlier spec, or another
            configuration of a confirmation or comparison, which are left out.
        fixed: The stage's fixed trials.
    """
    wanted = {trial.label for trial in fixed}
    return {
        label: record
        for label, record in ledger.records.items()
        if label in wanted or record.trial.proposed
    }


def stage_entries(ledger: Ledger, fixed: Sequence[Trial]) -> list[Entry]:
    """Return the entries of a stage's records, in the order of :func:`stage_records`."""
    return [entry_of(record) for record in stage_records(ledger, fixed).values()]


def earlier_baselines(ledger: Ledger, outline: SearchOutline) -> list[Entry]:
    """Return the baselines that finished as trials of the search and now belong to the comparison.

    A search that is resumed with `comparison_seeds` runs them no more, but what finished competes.

    Args:
        ledger: The search's ledger.
        outline: The search.
    """
    own = {trial.label for trial in outline.fixed_trials()}
    moved = {Trial.of_method(name).label for name in outline.compared} - own
    found = (record for label, record in ledger.records.items() if label in moved)
    return [entry_of(record) for record in found if record.status == TrialStatus.FINISHED]


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """Return trials in their order: the finished, the pruned, the interrupted and the failed, each
    by objective.

    Every finished trial has a rank. Of two with the same objective, the simpler comes first: plain
    fine-tuning, then other baselines, single configurations and soups.

    Args:
        entries: The trials of one search, in any order, with or without ranks.
    """

    def order(entry: Entry) -> tuple[int, float, int]:
        objective = -1.0 if entry.objective is None else entry.objective
        return _ORDER.index(entry.status), -objective, complexity(entry.trial)

    finished = sum(entry.status == TrialStatus.FINISHED for entry in entries)
    return [
        replace(entry, rank=place if place <= finished else None)
        for place, entry in enumerate(sorted(entries, key=order), 1)
    ]


def complexity(trial: Trial) -> int:
    """Return the place of a trial among trials with the same objective, the simplest first."""
    if trial.baseline:
        return 0 if trial.label == BASELINE else 1
    return 3 if trial.soup else 2


def distinct(entries: Iterable[Entry], key: Callable[[Entry], Hashable]) -> list[Entry]:
    """Return the first of the entries with equal keys, in their order."""
    found: dict[Hashable, Entry] = {}
    for entry in entries:
        found.setdefault(key(entry), entry)
    return list(found.values())


def best(entries: Sequence[Entry]) -> Entry | None:
    """Return the winner, the first-ranked of the ranked trials; None if none finished.

    It may be a baseline or a soup.
    """
    return next((entry for entry in entries if entry.rank == 1), None)


def best_single(entries: Sequence[Entry]) -> Entry | None:
    """Return the first-ranked trial that is not a soup, so that it has a configuration.

    Args:
        entries: The ranked trials, in their order.

    Returns:
        The trial, which may be a baseline; None if no single trial finished.
    """
    return next((entry for entry in entries if entry.rank and not entry.trial.soup), None)


def best_searched(entries: Sequence[Entry], winner: str | None = None) -> Entry | None:
    """Return the best configuration other than the baselines, which the comparison repeats.

    Args:
        entries: The ranked trials, in their order.
        winner: Label of the search's winner, which a confirmation may have chosen.

    Returns:
        The winner if it is neither a baseline nor a soup, else the first-ranked trial that is
        neither. If only baselines finished, the first of them; None if no single trial finished.
    """
    single = (entry for entry in entries if entry.rank and not entry.trial.soup)
    searched = [entry for entry in single if not entry.trial.baseline]
    first = next(iter(searched), best_single(entries))
    return next((entry for entry in searched if entry.label == winner), first)


def trained_as(entry: Entry, entries: Sequence[Entry]) -> Trial:
    """Return the trial that says how a model was built, such as whether its table was trimmed.

    Args:
        entry: A finished trial or a soup.
        entries: The trials of the search.

    Returns:
        Its own trial; of a soup, that of its first member, since a soup has no configuration.
    """
    first = entry.members[0] if entry.members else entry.label
    return next((one.trial for one in entries if one.label == first), entry.trial)


def baseline(entries: Sequence[Entry]) -> Entry | None:
    """Return the finished trial of plain fine-tuning; None if there is none."""
    finished = (entry for entry in entries if entry.status == TrialStatus.FINISHED)
    return next((entry for entry in finished if entry.label == BASELINE), None)


def write(
    entries: Sequence[Entry], folder: Path, name: str = "leaderboard", warning: str = ""
) -> list[Path]:
    """Write trials as `<name>.csv` and `<name>.json` into a folder.

    If any trial is a soup, the column `members` has the labels of its trials, separated by spaces.

    Args:
        entries: The trials, in their order.
        folder: An existing folder.
        name: Name of the files, without the suffix.
        warning: Why the trials do not compare, for a last column :data:`WARNING`; empty: they do.

    Returns:
        The paths of the two files.
    """
    soups = any(entry.members for entry in entries)
    rows = [
        {
            "rank": entry.rank,
            "trial": entry.label,
            "status": entry.status,
            "reason": entry.reason,
            **({MEMBERS: " ".join(entry.members)} if soups else {}),
            **entry.values,
            "objective": entry.objective,
            **{f"test/{name}": value for name, value in entry.test.items()},
            **{f"selected/{name}": value for name, value in entry.selected.items()},
            **{f"seconds/{name}": value for name, value in entry.seconds.items()},
            **({WARNING: warning} if warning else {}),
        }
        for entry in entries
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    as_csv, as_json = folder / f"{name}.csv", folder / f"{name}.json"
    with as_csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    as_json.write_text(json_text(rows), encoding="utf-8")
    return [as_csv, as_json]


def read(file: Path) -> list[Entry]:
    """Return the trials of `<name>.json`, as :func:`write` wrote it; none if there is no file."""
    if not file.exists():
        return []
    entries = []
    for row in json.loads(file.read_text(encoding="utf-8")):
        sections: dict[str, Any] = {"test": {}, "selected": {}, "seconds": {}}
        own = {}
        for column, value in row.items():
            section, _, name = column.partition("/")
            if section in sections:
                sections[section] |= with_nan({name: value})
            else:
                own[column] = value
        known: dict[str, Any] = {name: own.pop(name) for name in ("objective", "reason", "rank")}
        known[MEMBERS] = tuple(own.pop(MEMBERS, "").split())
        own.pop(WARNING, None)
        status = TrialStatus(own.pop("status"))
        trial = Trial.labelled(own.pop("trial"), own)
        entries.append(Entry(trial, status, **known, **sections))
    return entries
