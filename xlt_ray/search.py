"""The search: Ray Tune over the trials, Optuna proposing, ASHA stopping, MLflow recording."""

from __future__ import annotations

import functools
import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from xlt_ray.errors import UserError
from xlt_ray.plan import BASELINES, Plan
from xlt_ray.spec import OBJECTIVE, Categorical, Integer, LogUniform, SearchSpec
from xlt_ray.trial import LABEL, run_trial

if TYPE_CHECKING:
    import optuna
    from ray.tune.experiment import Trial


_SUPERVISOR = {"node:__internal_head__": 0.001}
"""What the actor that supervises a trial occupies: no core, and the head node keeps it, which is
not taken away like a spot node. The trial's workers ask for their own resources."""


class Sampler(OptunaSearch):
    """Optuna's proposals, after some fixed configurations that lie outside its space.

    The paper's setting has no margin and a radius that is no number, and the baseline has no
    views at all: neither is a point of the search space, so the sampler does not learn of them.

    Args:
        spec: The search.
        fixed: Configurations to run first, each with its label.
    """

    def __init__(self, spec: SearchSpec, fixed: list[dict[str, Any]]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        settings = spec.search
        sampler: optuna.samplers.BaseSampler
        if settings.sampler.name == "random":
            sampler = optuna.samplers.RandomSampler(seed=settings.seed)
        else:
            sampler = optuna.samplers.TPESampler(
                seed=settings.seed,
                n_startup_trials=settings.sampler.startup_trials,
                multivariate=True,
                # Parameters that only exist with some kind of view form groups of their own.
                group=True,
                constant_liar=True,
            )
        space = functools.partial(suggest_values, spec) if settings.parameters else None
        super().__init__(space=space, metric=OBJECTIVE, mode="max", sampler=sampler)
        self._fixed = list(fixed)
        self._fixed_trials: set[str] = set()
        self._proposed = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next fixed configuration, or Optuna's next proposal."""
        if self._fixed:
            self._fixed_trials.add(trial_id)
            return self._fixed.pop(0)
        values = super().suggest(trial_id)
        if values is None:
            return None
        self._proposed += 1
        return {LABEL: f"{self._proposed:02d}", **values}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell Optuna of an evaluation of one of its own trials."""
        if trial_id not in self._fixed_trials:
            super().on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna of the end of one of its own trials."""
        if trial_id not in self._fixed_trials:
            super().on_trial_complete(trial_id, result, error)


def suggest_values(spec: SearchSpec, trial: optuna.Trial) -> None:
    """Draw a value of every searched parameter that the trial's kind of view uses.

    Args:
        spec: The search.
        trial: Gets the values, under the keys of the spec.
    """
    kind = "method.view.kind"
    # The kind first: which others there are depends on it.
    keys = sorted(spec.search.parameters, key=lambda key: key != kind)
    method = spec.method
    for key in keys:
        section, _, name = key.partition(".")
        if section == "method" and not method.uses(name):
            continue
        given = spec.search.parameters[key]
        if isinstance(given, Categorical):
            value = trial.suggest_categorical(key, given.choices)
            if key == kind:
                view = method.view.model_copy(update={"kind": value})
                method = method.model_copy(update={"view": view})
        elif isinstance(given, Integer):
            trial.suggest_int(key, given.low, given.high)
        else:
            trial.suggest_float(key, given.low, given.high, log=isinstance(given, LogUniform))


class Pruner(ASHAScheduler):
    """ASHA over a trial's dev evaluations.

    The fixed trials are what others are compared with, so they always run to their end; of them
    the first one, the paper's setting, also counts in the rungs that others have to pass. The
    baselines do not: plain fine-tuning learns faster, having fewer targets, which says nothing of
    its end. A
    trial that has trained to its end is let go on to its test evaluation.
    """

    def __init__(self, spec: SearchSpec, evaluations: int, fixed: set[str]) -> None:
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

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide after an evaluation whether the trial goes on."""
        trained = result["step"] >= result["steps"]
        label = trial.config[LABEL]
        if not self._enabled or trained or label in BASELINES:
            return str(TrialScheduler.CONTINUE)
        decision = str(super().on_trial_result(tune_controller, trial, result))
        return str(TrialScheduler.CONTINUE) if label in self._fixed else decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Forget the trial, without entering its final score into rungs that it passed long ago."""
        del self._trial_info[trial.trial_id]


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


def can_resume(storage: str, folder_name: str) -> bool:
    """Whether a folder of the storage holds the state of trials that were begun."""
    return bool(tune.Tuner.can_restore(f"{storage}/{folder_name}"))


def run_tune(
    plan: Plan,
    fixed: list[dict[str, Any]],
    trials: int,
    *,
    concurrent: int,
    storage: str,
    folder_name: str,
    callbacks: list[tune.Callback],
    resume: bool,
    trial: Callable[..., None] | type[tune.Trainable] = run_trial,
    reuse_actors: bool = False,
) -> tune.ResultGrid:
    """Run the trials, or those that an interrupted search left.

    Args:
        plan: The checked search.
        fixed: Configurations to run first, each with its label; never stopped early.
        trials: Trials in all; the sampler proposes the others.
        concurrent: Trials side by side.
        storage: Folder or URI that holds the search's folder.
        folder_name: Name of the search's folder.
        callbacks: Told of every trial's start, results and end.
        resume: Whether to go on with the search of that folder: finished trials stay, running
            ones go on from their last checkpoint, failed ones are tried again.
        trial: What runs one trial.
        reuse_actors: Whether a trial may run in the process of one that has ended.

    Returns:
        The trials' results, also of those that failed.
    """
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    # Tune's own tables and log files would repeat what the callbacks show and record.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    spec = plan.spec
    trainable = tune.with_resources(
        tune.with_parameters(
            trial,
            spec=spec,
            storage=f"{storage}/{folder_name}/checkpoints",
            since=time.time(),
        ),
        _SUPERVISOR,
    )
    if resume:
        tuner = tune.Tuner.restore(
            f"{storage}/{folder_name}", trainable, resume_unfinished=True, resume_errored=True
        )
        return tuner.fit()
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=Sampler(spec, fixed),
            scheduler=Pruner(spec, plan.evaluations, {trial[LABEL] for trial in fixed}),
            num_samples=trials,
            max_concurrent_trials=concurrent,
            trial_name_creator=lambda trial: f"trial-{trial.config.get(LABEL, trial.trial_id)}",
            trial_dirname_creator=lambda trial: f"trial-{trial.config.get(LABEL, trial.trial_id)}",
            reuse_actors=reuse_actors,
        ),
        run_config=tune.RunConfig(
            name=folder_name, storage_path=storage, callbacks=callbacks, verbose=0
        ),
    )
    return tuner.fit()
