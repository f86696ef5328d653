"""The search: Ray Tune over the trials, Optuna proposing, ASHA stopping, MLflow recording."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.search import Searcher

from xlt_ray.cluster.pruner import Pruner
from xlt_ray.cluster.ray_patches import apply_patches
from xlt_ray.cluster.trial import run_trial
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.plan import Plan
from xlt_ray.search.resume import waiting_trials
from xlt_ray.search.study import Study
from xlt_ray.search.trials import LABEL, Trial, TrialStatus
from xlt_ray.storage import below

_SUPERVISOR = {"node:__internal_head__": 0.001}
"""What the actor that supervises a trial occupies: no core, and the head node keeps it, which is
not taken away like a spot node. The trial's workers ask for their own resources."""


class DriverOnly:
    """Lives in the driver. Tune writes such objects into its state, which is never read."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


class Sampler(DriverOnly, Searcher):
    """Configurations for Tune: those that wait, then what the study proposes.

    Among those that wait are the search's fixed configurations. They lie outside its space (the
    paper's setting has no margin and a radius that is no number, the baseline has no views at
    all), so the study does not learn of them.

    Args:
        study: Proposes, and is told how its proposals do.
        waiting: Trials to run first.
    """

    def __init__(self, study: Study, waiting: Iterable[Trial]) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._study = study
        self._waiting = deque(waiting)
        self._trials: dict[str, Trial] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return the next configuration."""
        waiting = self._waiting
        trial = waiting.popleft() if waiting else Trial.labelled(*self._study.propose())
        self._trials[trial_id] = trial
        return trial.to_config()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell the study of an evaluation of one of its proposals."""
        trial = self._trials[trial_id]
        if trial.proposed and result["evaluations"]:
            self._study.report(trial.label, result[OBJECTIVE], result["evaluations"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study of the end of one of its proposals.

        Tune does not pass the reason of a failure; the callback RecordTrials does.
        """
        trial = self._trials[trial_id]
        if trial.proposed and result and not error:
            self._study.end(trial.label, result[OBJECTIVE])

    def save(self, checkpoint_path: str) -> None:
        """Nothing is left to save: the study is kept in a file as it grows."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def run_tune(
    plan: Plan,
    fixed: list[Trial],
    trials: int,
    *,
    study: Study,
    ledger: Ledger,
    concurrent: int,
    storage: str,
    folder_name: str,
    callbacks: list[tune.Callback],
    trial: Callable[..., None] | type[tune.Trainable] = run_trial,
    reuse_actors: bool = False,
) -> None:
    """Run the trials, or those that an interrupted search left.

    Trials that have ended according to the ledger stay; those that were under way go on from their
    last checkpoint; those that failed are tried again, unless it was for reasons of their own.

    Args:
        plan: The checked search.
        fixed: Trials to run first; ASHA never stops them.
        trials: Trials in all; the study proposes the others.
        study: Proposes, and is told how trials do.
        ledger: What trials did before; the callbacks write what they do now.
        concurrent: Trials side by side.
        storage: Folder or URI that holds the search's folder.
        folder_name: Name of the search's folder.
        callbacks: Told of every trial's start, results and end.
        trial: What runs one trial.
        reuse_actors: Whether a trial may run in the process of one that has ended.
    """
    spec = plan.spec
    names = {trial.label for trial in fixed}
    pruner = Pruner(spec, plan.evaluations, names, ledger.history)
    for label in pruner.stopped:
        if ledger.records[label].status == TrialStatus.RUNNING:
            # The process ended between the decision and its record.
            ledger.end(label, TrialStatus.PRUNED)
    waiting = waiting_trials(fixed, study, ledger)
    left = len(waiting) + max(0, trials - len(fixed) - study.proposed)
    if not left:
        return
    apply_patches()
    # What fails is told by the callbacks, in a line each.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Tune's own tables and log files would repeat what the callbacks show and record.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Tune would hand AWS keys on to trials by a way that Ray logs. Workers have their machine's.
    class_cache.ENV_VARS_TO_PROPAGATE = {
        name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")
    }
    # Nor is its state needed: a search goes on from the study and the ledger.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1000000")
    trainable = tune.with_resources(
        tune.with_parameters(
            trial,
            spec=spec,
            storage=below(storage, f"{folder_name}/checkpoints"),
            since=time.time(),
        ),
        _SUPERVISOR,
    )
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=Sampler(study, waiting),
            scheduler=pruner,
            num_samples=left,
            max_concurrent_trials=concurrent,
            trial_name_creator=lambda trial: f"trial-{trial.config.get(LABEL, trial.trial_id)}",
            trial_dirname_creator=lambda trial: f"trial-{trial.config.get(LABEL, trial.trial_id)}",
            reuse_actors=reuse_actors,
        ),
        run_config=tune.RunConfig(
            name=folder_name, storage_path=storage, callbacks=callbacks, verbose=0
        ),
    )
    # At the end Tune reads back the errors of failed trials, which a full disk has left empty; the
    # ledger has what is needed of them.
    with contextlib.suppress(EOFError):
        tuner.fit()
