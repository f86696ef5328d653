"""Resume a search: find its folder, check its spec, list its waiting trials. Used by the CLI and
by the cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import UserError
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.changes import differences
from xlt_ray.search.ledger import Ledger, changed_inputs
from xlt_ray.search.study import Study
from xlt_ray.search.trials import Trial, TrialStatus
from xlt_ray.storage import is_remote
from xlt_ray.training.faults import FailureKind

_NEVER = "search.parameters"
"""Prefix of the keys that may not differ even with --force."""
_SHOWN = 3
"""Differences that the error message shows."""


def find_folder(named: str, storage: str, flag: str = "--resume") -> Path:
    """Return the folder of a search.

    Args:
        named: The folder, or the name of the search, which stands for its latest folder.
        storage: Folder or URI that holds the folders of searches.
        flag: The command-line flag, for error messages.

    Raises:
        UserError: If there is no such search.
    """
    folder = Path(named)
    if (folder / "search.yaml").is_file():
        return folder
    runs = Path("runs" if is_remote(storage) else storage)
    dated = re.compile(rf"{re.escape(named)}-\d{{8}}-\d{{6}}(-\d+)?")
    found = sorted(
        path.parent for path in runs.glob("*/search.yaml") if dated.fullmatch(path.parent.name)
    )
    if found:
        return found[-1]
    if folder.is_dir():
        raise UserError(
            f"{flag} {named}: there is no search.yaml in it; expected the folder of a search, "
            "such as runs/demo-20260101-120000"
        )
    raise UserError(
        f"{flag} {named}: neither the folder of a search, such as runs/demo-20260101-120000, nor "
        f"the name of one in {runs}/"
    )


def check_unchanged(
    before: Mapping[str, Any] | None, spec: SearchSpec, where: Path, force: bool
) -> None:
    """Check that a resumed search has the spec with which it started, so that trials compare.

    Args:
        before: The spec with which the search started or last resumed; None: it did not start.
        spec: The spec to resume with.
        where: The search's folder.
        force: Whether to accept differences other than in the search space.

    Raises:
        UserError: If keys differ that affect a trial.
    """
    if before is None:
        return
    changed = differences(before, spec.model_dump(mode="json"))
    fatal = [key for key in changed if key.startswith(_NEVER)]
    if not changed or (force and not fatal):
        return
    shown = [f"{key} was {old!r}, now {new!r}" for key, (old, new) in changed.items()][:_SHOWN]
    more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    remedy = "start a new search, or undo the change"
    if not fatal:
        remedy += ", or add --force to resume with trials that do not compare"
    raise UserError(
        f"--resume {where}: the search started with another spec: {'; '.join(shown)}{more}; "
        f"{remedy}"
    )


def check_same_inputs(
    before: Mapping[str, str] | None, inputs: Mapping[str, str], where: Path, force: bool
) -> None:
    """Check that a resumed search reads what it read at its start, so that trials compare.

    Args:
        before: Fingerprints at the start, by name; None: not recorded, or no trial ran.
        inputs: Fingerprints now.
        where: The search's folder.
        force: Whether to accept changes.

    Raises:
        UserError: If an input changed.
    """
    changed = [] if before is None or force else changed_inputs(before, inputs)
    if not changed:
        return
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    raise UserError(
        f"--resume {where}: changed since the search started: {', '.join(changed[:_SHOWN])}{more}; "
        "start a new search, or undo the change, or add --force to resume with trials that do not "
        "compare"
    )


def waiting_trials(fixed: Iterable[Trial], study: Study, ledger: Ledger) -> list[Trial]:
    """Return the trials to run before the study proposes any: the fixed ones, and those of an
    interrupted search that did not end.

    The ledger and the study may differ: the process ended between two writes, or the files are
    copies of different moments. The study then gets what only the ledger has, and vice versa.
    """
    records = ledger.records
    proposals = (record.trial for record in records.values() if record.trial.proposed)
    known = {trial.number: trial for trial in proposals}
    for number in range(study.proposed + 1, max(known, default=0) + 1):
        if number in known:
            study.adopt(dict(known[number].values))
        else:
            # A later proposal started before this one; it keeps its number.
            study.propose()
    for label in study.unfinished().keys() & records.keys():
        record = records[label]
        for evaluation in record.evaluations:
            study.report(label, evaluation[OBJECTIVE], int(evaluation["evaluations"]))
        if record.status in (TrialStatus.FINISHED, TrialStatus.PRUNED):
            study.end(label, record.metrics[OBJECTIVE])
        elif record.status == TrialStatus.FAILED:
            study.end(label, failed_objective(record.failure))
    # A recorded trial keeps its recorded values: with concurrent trials, a study that is read back
    # may draw other ones.
    proposed = [
        records[label].trial if label in records else Trial.labelled(label, values)
        for label, values in study.values().items()
    ]
    return [
        trial
        for trial in [*fixed, *proposed]
        if trial.label not in records or not records[trial.label].ended
    ]


def failed_objective(failure: FailureKind | None) -> float | None:
    """Return the objective that the study gets for a failed trial.

    It is 0, the worst accuracy, if the configuration caused the failure, and None otherwise, so
    that Optuna learns nothing from a lost machine.
    """
    return 0.0 if failure is FailureKind.OUTCOME else None
