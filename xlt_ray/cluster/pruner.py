"""ASHA over a trial's dev evaluations."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from xlt_ray.config.spec import SearchSpec
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.trials import LABEL, Trial

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial


class Pruner(ASHAScheduler):
    """ASHA over a trial's dev evaluations.

    The fixed trials are what others are compared with, so they always run to their end; of them
    the first one, the paper's setting, also counts in the rungs that others have to pass. The
    baselines do not: plain fine-tuning learns faster, having fewer targets, which says nothing of
    its end. A trial that has trained to its end is let go on to its test evaluation.

    Args:
        spec: The search.
        evaluations: Dev evaluations of one trial.
        fixed: Labels of the fixed trials.
        history: Evaluations of before the search was interrupted, in their order: they stand in the
            rungs.
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
        """Labels that were to stop after their last evaluation of before."""
        for label, evaluation in history:
            trial = _labelled(label)
            if label not in self._trial_info:
                super().on_trial_add(_NO_TUNE, trial)
            stops = self._decide(trial, evaluation) == TrialScheduler.STOP
            (self.stopped.add if stops else self.stopped.discard)(label)

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Enter a trial."""
        super().on_trial_add(tune_controller, _labelled(trial.config[LABEL]))

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """Decide after an evaluation whether the trial goes on."""
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
        """Forget the trial, without entering its final score into rungs that it passed long ago."""
        self._trial_info.pop(trial.config[LABEL], None)

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Forget a trial that was under way."""
        self._trial_info.pop(trial.config[LABEL], None)


_NO_TUNE: Any = None
"""ASHA is given the controller and does not look at it."""


def _labelled(label: str) -> Any:
    """A trial as ASHA sees it: known by its label, which stays when it is run anew."""
    return SimpleNamespace(trial_id=label)
