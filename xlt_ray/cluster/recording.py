"""The callback that records trials in the ledger and in MLflow; a stage passes it to `run_tune`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import cloudpickle
from ray.tune import Callback

from xlt_ray.cluster.tune import DriverOnly
from xlt_ray.config.loading import dump_spec
from xlt_ray.names import OBJECTIVE, ZERO_SHOT_ACCURACY
from xlt_ray.search.ledger import Ledger, is_tested
from xlt_ray.search.plan import Plan, parameters_of
from xlt_ray.search.resume import failed_objective
from xlt_ray.search.trials import LABEL, Trial, TrialStatus
from xlt_ray.tracking.descriptions import NOTE_TAG, run_name, trial_note
from xlt_ray.tracking.results_view import HEADLINE
from xlt_ray.training.faults import FailureKind, failure_kind, recorded_kind

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial

    from xlt_ray.search.study import Study
    from xlt_ray.tracking.recorder import Recorder
    from xlt_ray.tracking.recorder import Status as TrackingStatus

_RECORDED = ("train/", "dev/", "selected/", "test/", "time/", "system/", "faults/", OBJECTIVE)
"""Prefixes of the metrics that MLflow gets."""

_KEPT = (*_RECORDED, "step", "evaluations", "time_total_s", "checkpoint_path")
"""Prefixes of the metrics that the ledger gets."""


class RecordTrials(DriverOnly, Callback):
    """Records every trial: first in the ledger, then as a child run in MLflow.

    Args:
        recorder: Writes to MLflow.
        ledger: The search's ledger.
        study: Gets the failures of proposals. Tune does not pass failure reasons to searchers, so
            the callback does.
        plan: The search.
        tags: Tags of every trial's run.
    """

    def __init__(
        self, recorder: Recorder, ledger: Ledger, study: Study, plan: Plan, tags: dict[str, str]
    ) -> None:
        self._recorder = recorder
        self._ledger = ledger
        self._study = study
        self._plan = plan
        self._tags = tags

    def catch_up(self) -> None:
        """Give MLflow what only the ledger has because the process ended between both writes."""
        for label, known in self._recorder.trials().items():
            record = self._ledger.records.get(label)
            if record is None:
                continue
            if known.metrics < len(record.evaluations):
                self._record_metrics(label, record.metrics)
            if known.open and record.ended:
                self._record_end(label, record.status)

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Start the trial's run."""
        started = Trial.from_config(trial.config)
        label = started.label
        self._ledger.start(started)
        spec = started.spec(self._plan.spec)
        self._recorder.start_trial(
            label,
            run_name(self._plan.spec, started),
            parameters_of(spec),
            self._tags | {"method": spec.method.name, "trial": label, NOTE_TAG: self._note(label)},
        )
        self._recorder.log_text(label, dump_spec(spec), "spec.yaml")

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Record an evaluation's metrics."""
        label = trial.config[LABEL]
        kept = {key: value for key, value in result.items() if key.startswith(_KEPT)}
        if self._ledger.evaluated(label, kept):
            self._record_metrics(label, kept)

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """End the run; a trial without test scores was pruned."""
        label = trial.config[LABEL]
        tested = is_tested(trial.last_result)
        self._ledger.end(label, TrialStatus.FINISHED if tested else TrialStatus.PRUNED)
        self._record_end(label, self._ledger.records[label].status)

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """End the run of a failed trial."""
        label = trial.config[LABEL]
        if label not in self._ledger.records:
            # Its process died while starting: Tune then skips `on_trial_start`.
            self.on_trial_start(iteration, trials, trial)
        reason = (trial.error_file and failure_reason(trial.error_file)) or "unknown error"
        failure = recorded_failure(trial.pickled_error_file, reason)
        self._ledger.end(label, TrialStatus.FAILED, reason, failure)
        if self._ledger.records[label].trial.proposed:
            self._study.end(label, failed_objective(failure))
        self._record_end(label, TrialStatus.FAILED)

    def _record_metrics(self, label: str, result: dict[str, Any]) -> None:
        metrics = {key: value for key, value in result.items() if key.startswith(_RECORDED)}
        if is_tested(result):
            metrics[HEADLINE] = result[f"test/{ZERO_SHOT_ACCURACY}"]
        self._recorder.log_metrics(label, metrics, step=result["step"])

    def _record_end(self, label: str, status: TrialStatus) -> None:
        self._recorder.set_tags(label, {"status": status, NOTE_TAG: self._note(label)})
        ended: TrackingStatus = "FAILED" if status == TrialStatus.FAILED else "KILLED"
        self._recorder.end_trial(label, "FINISHED" if status == TrialStatus.FINISHED else ended)

    def _note(self, label: str) -> str:
        return trial_note(self._plan.spec, self._ledger.records[label])


def recorded_failure(path: str | None, reason: str) -> FailureKind:
    """Return the kind of a failure that Tune wrote to a trial's folder.

    Args:
        path: File of the pickled error; None: Tune wrote none.
        reason: The error in one line, which tells the kind if the file does not.
    """
    # A full disk leaves the file empty, and not every error can be unpickled.
    with contextlib.suppress(Exception):
        if path is not None:
            return failure_kind(cloudpickle.loads(Path(path).read_bytes()))
    return recorded_kind(None, reason)


def failure_reason(path: str) -> str:
    """Return why a trial failed: the last line of its error file, which names the error."""
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    if any("node running low on memory" in line for line in lines):
        # Ray's own message has a page, with its settings at the end.
        return (
            "the machine ran out of memory, so Ray ended the trial's worker; run fewer trials "
            "at a time (--max-concurrent) or lower training.micro_batch_tokens"
        )
    return lines[-1] if lines else ""
