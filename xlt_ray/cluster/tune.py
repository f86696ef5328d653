"""Ray Tune runs a stage's trials: Optuna proposes them, ASHA stops them, callbacks record them."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.search import Searcher

from xlt_ray.cluster.pruner import Pruner
from xlt_ray.cluster.ray_patches import keep_aws_keys_private, survive_memory_monitor
from xlt_ray.cluster.trainable import run_trial
from xlt_ray.names import CHECKPOINTS, OBJECTIVE
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.plan import Plan
from xlt_ray.search.resume import waiting_trials
from xlt_ray.search.study import Study
from xlt_ray.search.trials import LABEL, Trial, TrialStatus
from xlt_ray.storage import below

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial

TUNE_FOLDER = "tune"
"""Folder of Ray Tune's own files in a stage's folder; they include failed trials' tracebacks."""

_SUPERVISOR = {"node:__internal_head__": 0.001}
"""Resources of the actor that supervises a trial: no CPU, and the head node, which is not preempted
like a spot node. The trial's workers request their own resources."""


class DriverOnly:
    """An object of the driver. Tune pickles it into its state, which nobody reads."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


class Sampler(DriverOnly, Searcher):
    """Configurations for Tune: the waiting trials, then the study's proposals.

    The study does not learn from fixed trials, because they lie outside its space: the paper's
    setting has no margin and a radius that is no number, plain fine-tuning has no views.

    Args:
        study: Proposes configurations and learns from their results.
        waiting: Trials to run first.
        over: Returns why no more trials start; None: they do.
        resumed: Labels of the waiting trials that started before an interruption; they continue
            in any case.
    """

    def __init__(
        self,
        study: Study,
        waiting: Iterable[Trial],
        over: Callable[[], str | None] = lambda: None,
        resumed: Collection[str] = (),
    ) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._study = study
        self._waiting = deque(waiting)
        self._over = over
        self._resumed = resumed
        self._trials: dict[str, Trial] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return the next configuration, or that there is none."""
        if self._over() is not None:
            self._waiting = deque(t for t in self._waiting if t.label in self._resumed)
            if not self._waiting:
                return Searcher.FINISHED  # type: ignore[return-value]
        waiting = self._waiting
        trial = waiting.popleft() if waiting else Trial.labelled(*self._study.propose())
        self._trials[trial_id] = trial
        return trial.to_config()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an evaluation of a proposal to the study."""
        trial = self._trials[trial_id]
        if trial.proposed and result["evaluations"]:
            self._study.report(trial.label, result[OBJECTIVE], result["evaluations"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Report the end of a proposal to the study.

        Tune does not pass failure reasons to searchers, so the callback `RecordTrials` does.
        """
        trial = self._trials[trial_id]
        if trial.proposed and result and not error:
            self._study.end(trial.label, result[OBJECTIVE])

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study writes its own file."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the study reads its own file."""


@dataclass(frozen=True)
class Stage:
    """The state and the place of a stage: the search itself, its confirmation or its comparison."""

    study: Study
    """Proposes configurations and learns from their results."""
    ledger: Ledger
    """What the trials did so far; the callbacks write to it."""
    pruner: Pruner
    """Stops weak trials; :func:`resumed_pruner` makes it."""
    concurrent: int
    """Trials that run at the same time."""
    storage: str
    """Folder or URI that gets the trials' checkpoints and Tune's files."""
    name: str
    """Name of Tune's experiment, under which Tune keeps local files: the search's, or that of a
    further stage, such as `confirmation`."""
    over: Callable[[], str | None] = lambda: None
    """Returns why no more trials start; None: they do."""


def resumed_pruner(plan: Plan, fixed: Sequence[Trial], ledger: Ledger) -> Pruner:
    """Return ASHA with the rungs of a stage's earlier evaluations.

    If the process ended after ASHA stopped a trial and before the ledger had it, the ledger gets it
    now.

    Args:
        plan: The checked search.
        fixed: The stage's fixed trials; ASHA never stops them.
        ledger: The stage's ledger.
    """
    pruner = Pruner(plan.spec, plan.evaluations, {trial.label for trial in fixed}, ledger.history)
    for label in pruner.stopped:
        if ledger.records[label].status == TrialStatus.RUNNING:
            ledger.end(label, TrialStatus.PRUNED)
    return pruner


def run_tune(
    plan: Plan,
    fixed: list[Trial],
    trials: int,
    stage: Stage,
    callbacks: list[tune.Callback],
    *,
    trainable: Callable[..., None] | type[tune.Trainable] = run_trial,
    reuse_actors: bool = False,
) -> None:
    """Run the trials of a stage, or resume them.

    According to the ledger, trials that ended stay as they are, running trials continue from their
    last checkpoint, and failed trials run again, unless their configuration caused the failure.

    Args:
        plan: The checked search.
        fixed: Trials to run first.
        trials: Total number of trials; the study proposes those that are not fixed.
        stage: The stage's state and place.
        callbacks: Callbacks of Tune that record and show every trial.
        trainable: Runs one trial.
        reuse_actors: Whether a trial may run in the process of a trial that ended.
    """
    study, ledger = stage.study, stage.ledger
    waiting = waiting_trials(fixed, study, ledger)
    resumed = {
        trial.label
        for trial in waiting
        if trial.label in ledger.records
        and ledger.records[trial.label].status == TrialStatus.RUNNING
    }
    left = len(waiting) + max(0, trials - len(fixed) - study.proposed)
    if not left or (not resumed and stage.over() is not None):
        return
    _prepare_ray()
    shared = {
        "spec": plan.spec,
        "storage": below(stage.storage, CHECKPOINTS),
        "since": time.time(),
    }
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, **shared), _SUPERVISOR),
        tune_config=tune.TuneConfig(
            search_alg=Sampler(study, waiting, stage.over, resumed),
            scheduler=stage.pruner,
            num_samples=left,
            max_concurrent_trials=stage.concurrent,
            trial_name_creator=_folder_name,
            trial_dirname_creator=_folder_name,
            reuse_actors=reuse_actors,
        ),
        run_config=tune.RunConfig(
            name=stage.name,
            # Nothing reads Tune's files, so they have a folder of their own.
            storage_path=below(stage.storage, TUNE_FOLDER),
            callbacks=callbacks,
            verbose=0,
        ),
    )
    # At the end, Tune reads the error files of failed trials, which are empty after a full disk.
    # The ledger has the errors.
    with contextlib.suppress(EOFError):
        tuner.fit()


def _prepare_ray() -> None:
    """Apply the patches of Ray, and turn off what the callbacks and the ledger replace."""
    survive_memory_monitor()
    keep_aws_keys_private()
    # The callbacks report each failure in one line.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # The callbacks replace Tune's tables and log files.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # A search resumes from the study and the ledger, not from Tune's state.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1000000")


def _folder_name(trial: TuneTrial) -> str:
    return f"trial-{trial.config.get(LABEL, trial.trial_id)}"
