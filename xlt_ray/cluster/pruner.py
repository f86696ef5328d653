"""ASHA over a trial's dev evaluations; `run_tune` passes it to Ray Tune."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from xlt_ray.cluster.ray_patches import asha_forget, asha_has
from xlt_ray.config.spec import SearchSpec
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.trials import LABEL, Trial

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial


class Pruner(ASHAScheduler):
    """ASHA over a trial's dev evaluations.

    ASHA never stops a fixed trial, because other trials are compared with it. The first fixed
    trial, the paper's, counts in the rungs that others must pass; the baselines do not, because
    plain fine-tuning has fewer loss terms and learns faster early on. A trial that has trained all
    its steps continues to its test evaluation.

    Args:
        spec: The search.
        evaluations: Dev evaluations of one trial.
        fixed: Labels of the fixed trials.
        history: Evaluations from before an interruption, in their order; they fill the rungs.
    """

    def __init__(
        self,
        spec: SearchSpec,
        evaluations: int,
        fixed: set[str],
        history: Iterable[tuple[str, dict[str, Any]]] = (),
    ) -> None:
        stopping = spec.search.early_stopping
        super().__init__(
            time_attr="evaluations",
            metric=OBJECTIVE,
            mode="max",
            max_t=max(evaluations, stopping.grace_evaluations),
            grace_period=stopping.grace_evaluations,
            reduction_factor=stopping.reduction_factor,
            stop_last_trials=False,
        )
        self._enabled = stopping.enabled
        self._fixed = fixed
        self.stopped: set[str] = set()
        """Labels of trials that ASHA had decided to stop before the interruption."""
        for label, evaluation in history:
            trial = _labelled(label)
            if not asha_has(self, label):
                super().on_trial_add(_NO_TUNE, trial)
            stops = self._decide(trial, evaluation) == TrialScheduler.STOP
            (self.stopped.add if stops else self.stopped.discard)(label)

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Add a trial."""
        super().on_trial_add(tune_controller, _labelled(trial.config[LABEL]))

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """Return whether the trial continues after an evaluation."""
        return self._decide(_labelled(trial.config[LABEL]), result)

    def _decide(self, trial: TuneTrial, result: dict[str, Any]) -> str:
        trained = result["step"] >= result["steps"]
        label = trial.trial_id
        if not self._enabled or trained or Trial.labelled(label).baseline:
            return str(TrialScheduler.CONTINUE)
        decision = str(super().on_trial_result(_NO_TUNE, trial, result))
        return str(TrialScheduler.CONTINUE) if label in self._fixed else decision

    def on_trial_complete(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> None:
        """Forget the trial; its final score does not enter the rungs that it passed before."""
        asha_forget(self, trial.config[LABEL])

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Forget a running trial."""
        asha_forget(self, trial.config[LABEL])


_NO_TUNE: Any = None
"""ASHA takes Tune's controller as an argument and does not use it."""


def _labelled(label: str) -> Any:
    """Return a trial as ASHA sees it, identified by its label, which a resumed trial keeps."""
    return SimpleNamespace(trial_id=label)
