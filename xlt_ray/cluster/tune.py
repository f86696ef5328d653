"""The search: Ray Tune over the trials, Optuna proposing, ASHA stopping, MLflow recording."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import class_cache
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from xlt_ray.cluster.trial import LABEL, run_trial, trial_values
from xlt_ray.config.spec import OBJECTIVE, SearchSpec
from xlt_ray.errors import UserError
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.plan import BASELINES, Plan
from xlt_ray.search.study import Study
from xlt_ray.storage import below
from xlt_ray.training.faults import is_outcome

if TYPE_CHECKING:
    from ray.tune.experiment import Trial


_SUPERVISOR = {"node:__internal_head__": 0.001}
"""What the actor that supervises a trial occupies: no core, and the head node keeps it, which is
not taken away like a spot node. The trial's workers ask for their own resources."""


_end_actor = RayActorManager._actor_task_failed


def _end_actor_for_memory(
    self: RayActorManager, tracked_actor_task: Any, exception: Exception
) -> None:
    """Take an actor that Ray's memory monitor ended for one that died: Tune does not know the
    monitor's error, and would end with all trials."""
    if isinstance(exception, OutOfMemoryError):
        exception = RayActorError(error_msg=str(exception))
    _end_actor(self, tracked_actor_task, exception)


RayActorManager._actor_task_failed = _end_actor_for_memory  # type: ignore[method-assign]


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
        waiting: Configurations to run first, each with its label.
    """

    def __init__(self, study: Study, waiting: Iterable[dict[str, Any]]) -> None:
        super().__init__(metric=OBJECTIVE, mode="max")
        self._study = study
        self._waiting = deque(waiting)
        self._labels: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return the next configuration."""
        if self._waiting:
            config = self._waiting.popleft()
        else:
            label, values = self._study.propose()
            config = {LABEL: label, **values}
        self._labels[trial_id] = config[LABEL]
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell the study of an evaluation of one of its proposals."""
        label = self._labels[trial_id]
        if label.isdigit() and result["evaluations"]:
            self._study.report(label, result[OBJECTIVE], result["evaluations"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study of the end of one of its proposals.

        Tune does not pass the reason of a failure; the callback RecordTrials does.
        """
        label = self._labels[trial_id]
        if label.isdigit() and result and not error:
            self._study.end(label, result[OBJECTIVE])

    def save(self, checkpoint_path: str) -> None:
        """Nothing is left to save: the study is kept in a file as it grows."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


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

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Enter a trial."""
        super().on_trial_add(tune_controller, _labelled(trial.config[LABEL]))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide after an evaluation whether the trial goes on."""
        return self._decide(_labelled(trial.config[LABEL]), result)

    def _decide(self, trial: Trial, result: dict[str, Any]) -> str:
        trained = result["step"] >= result["steps"]
        label = trial.trial_id
        if not self._enabled or trained or label in BASELINES:
            return str(TrialScheduler.CONTINUE)
        decision = str(super().on_trial_result(_NO_TUNE, trial, result))
        return str(TrialScheduler.CONTINUE) if label in self._fixed else decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Forget the trial, without entering its final score into rungs that it passed long ago."""
        self._trial_info.pop(trial.config[LABEL], None)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Forget a trial that was under way."""
        self._trial_info.pop(trial.config[LABEL], None)


_NO_TUNE: Any = None
"""ASHA is given the controller and does not look at it."""


def _labelled(label: str) -> Any:
    """A trial as ASHA sees it: known by its label, which stays when it is run anew."""
    return SimpleNamespace(trial_id=label)


@dataclass(frozen=True)
class Cluster:
    """What the Ray cluster offers, the nodes that its autoscaler may add included."""

    cpus: float
    """CPU cores."""
    gpus: float
    """GPUs."""

    def concurrent_trials(self, spec: SearchSpec) -> int:
        """How many trials fit side by side.

        Raises:
            UserError: If not even one does.
        """
        resources = spec.resources
        workers = resources.workers_per_trial
        fits = [self.cpus / (workers * resources.cpus_per_worker)]
        if resources.gpus_per_worker:
            fits.append(self.gpus / (workers * resources.gpus_per_worker))
        # Tolerate binary fractions: 0.3 / 0.1 is three trials.
        trials = int(min(fits) + 1e-6)
        if trials < 1:
            raise UserError(
                f"resources: one trial takes {workers * resources.cpus_per_worker:g} CPU and "
                f"{workers * resources.gpus_per_worker:g} GPU, the cluster has {self.cpus:g} CPU "
                f"and {self.gpus:g} GPU; lower resources.workers_per_trial, cpus_per_worker or "
                "gpus_per_worker, or join a larger cluster with --address"
            )
        limit = spec.search.max_concurrent
        return trials if limit is None else min(trials, limit)


def run_tune(
    plan: Plan,
    fixed: list[dict[str, Any]],
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
        fixed: Configurations to run first, each with its label; never stopped early.
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
    names = {config[LABEL] for config in fixed}
    pruner = Pruner(spec, plan.evaluations, names, ledger.history)
    for label in pruner.stopped:
        if ledger.records[label].status == "running":
            # The process ended between the decision and its record.
            ledger.end(label, "pruned")
    waiting = waiting_trials(fixed, study, ledger)
    left = len(waiting) + max(0, trials - len(fixed) - study.proposed)
    if not left:
        return
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


def waiting_trials(
    fixed: Iterable[dict[str, Any]], study: Study, ledger: Ledger
) -> list[dict[str, Any]]:
    """Configurations to run before the study proposes any: the fixed ones, and those of an
    interrupted search that had not ended.

    What the ledger knows and the study does not, because the process ended in between or the files
    are copies of different moments, the study is told here; and the other way round.
    """
    records = ledger.records
    for label in sorted((label for label in records if label.isdigit()), key=int):
        if int(label) > study.proposed:
            study.adopt(trial_values(records[label].config))
    for label in study.unfinished().keys() & records.keys():
        record = records[label]
        for evaluation in record.evaluations:
            study.report(label, evaluation[OBJECTIVE], int(evaluation["evaluations"]))
        if record.status in ("finished", "pruned"):
            study.end(label, record.metrics[OBJECTIVE])
        elif record.status == "failed":
            study.end(label, failed_objective(record.reason))
    # A trial that has a record is run as recorded: with several at a time the study, read back,
    # may draw other values than those that it was given last.
    proposed = [
        records[label].config if label in records else {LABEL: label, **values}
        for label, values in study.values().items()
    ]
    return [
        config
        for config in [*fixed, *proposed]
        if config[LABEL] not in records or not records[config[LABEL]].ended
    ]


def failed_objective(reason: str) -> float | None:
    """What the study is told of a failed trial: the worst accuracy, where the failure is a result
    of its configuration, and nothing where a machine was lost."""
    return 0.0 if is_outcome(reason) else None
