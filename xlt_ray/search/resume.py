"""Going on with a search: which folder it has, and whether it still is the same search."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xlt_ray.config.keys import flatten
from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import UserError
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.study import Study
from xlt_ray.search.trials import Trial, TrialStatus
from xlt_ray.storage import is_remote
from xlt_ray.training.faults import is_outcome

HARMLESS = (
    "description",
    "search.num_trials",
    "search.max_concurrent",
    "search.max_failures",
    "search.keep_weights",
    "search.baselines",
    "search.comparison_seeds",
    "assessment.",
)
"""Keys, or beginnings of keys, that change no trial: a search that goes on may have others."""

_NEVER = "search.parameters"
_TOLD = 3


def find_folder(named: str, storage: str, flag: str = "--resume") -> Path:
    """The folder of a search.

    Args:
        named: The folder, or the name of the search: its latest.
        storage: Where searches are kept.
        flag: Where it is named.

    Raises:
        UserError: If there is none.
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
    """Refuse to go on with a search as another one, whose trials would not compare.

    Args:
        before: The search as it was begun; None: nothing of it was run.
        spec: The search that is to go on.
        where: Its folder.
        force: Go on anyway.

    Raises:
        UserError: If keys differ that change what a trial does.
    """
    if before is None:
        return
    with contextlib.suppress(ValidationError):
        # A key that an earlier version had not yet has its default.
        before = SearchSpec.model_validate(before).model_dump(mode="json")
    told = differences(before, spec.model_dump(mode="json"))
    fatal = [key for key in told if key.startswith(_NEVER)]
    if not told or (force and not fatal):
        return
    shown = [f"{key} was {old!r}, now {new!r}" for key, (old, new) in told.items()][:_TOLD]
    more = f", and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    remedy = "begin a new search, or leave the change out"
    if not fatal:
        remedy += ", or add --force to go on with trials that do not compare"
    raise UserError(
        f"--resume {where}: it was begun as another search: {'; '.join(shown)}{more}; {remedy}"
    )


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What of a search changed, but for what is harmless: old and new value by key."""
    old, new = flatten(before), flatten(after)
    return {
        key: (old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(HARMLESS)
    }


def waiting_trials(fixed: Iterable[Trial], study: Study, ledger: Ledger) -> list[Trial]:
    """Return the trials to run before the study proposes any: the fixed ones, and those of an
    interrupted search that did not end.

    The ledger and the study may differ: the process ended between two writes, or the files are
    copies of different moments. The study then gets what only the ledger has, and vice versa.
    """
    records = ledger.records
    known = (record.trial for record in records.values() if record.trial.proposed)
    for trial in sorted(known, key=lambda trial: trial.number):
        if trial.number > study.proposed:
            study.adopt(dict(trial.values))
    for label in study.unfinished().keys() & records.keys():
        record = records[label]
        for evaluation in record.evaluations:
            study.report(label, evaluation[OBJECTIVE], int(evaluation["evaluations"]))
        if record.status in (TrialStatus.FINISHED, TrialStatus.PRUNED):
            study.end(label, record.metrics[OBJECTIVE])
        elif record.status == TrialStatus.FAILED:
            study.end(label, failed_objective(record.reason))
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


def failed_objective(reason: str) -> float | None:
    """What the study is told of a failed trial: the worst accuracy, where the failure is a result
    of its configuration, and nothing where a machine was lost."""
    return 0.0 if is_outcome(reason) else None
