"""The Optuna study of a search; Ray Tune's sampler uses it.

Its file is a journal that optuna-dashboard reads too. A proposal depends only on the search's seed,
the proposal's number and the results so far. There is no state of a random generator to lose: a
study that is opened again after its process was killed makes the same proposals.
"""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from xlt_ray.config.space import Categorical, Integer, LogUniform
from xlt_ray.config.spec import SearchSpec
from xlt_ray.journal import Journal
from xlt_ray.names import STATE
from xlt_ray.search.trials import Trial

STUDY_FILE = f"{STATE}/study.log"
"""Name of the study's file in a search's folder."""

_AGAIN = "again"
"""Attribute of a study entry that repeats a failed proposal: the proposal's label."""


class Study:
    """Optuna's proposals for one search, each with a label: 01, 02, ...

    Args:
        spec: The search.
        file: The study's file; created if there is none. None: in memory only. One process at a
            time may use it.
    """

    def __init__(self, spec: SearchSpec, file: Path | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._spec = spec
        storage: optuna.storages.BaseStorage = InMemoryStorage()
        if file is not None:
            _mend(file)
            storage = JournalStorage(JournalFileBackend(str(file)))
        self._study = optuna.create_study(
            storage=storage, study_name=spec.name, direction="maximize", load_if_exists=True
        )
        self._numbers: dict[str, int] = {}
        """Number of each label's entry in the study."""
        for trial in self._entries():
            self._numbers[trial.user_attrs.get(_AGAIN) or self._next_label()] = trial.number

    @property
    def proposed(self) -> int:
        """Number of proposals."""
        return len(self._numbers)

    def values(self) -> dict[str, dict[str, Any]]:
        """Return the values of all proposals, by label."""
        entries = self._entries()
        unfinished = self.unfinished()
        return {
            label: unfinished.get(label, entries[number].params)
            for label, number in self._numbers.items()
        }

    def adopt(self, values: dict[str, Any]) -> None:
        """Add a proposal that the file lost, as the next one.

        Args:
            values: The proposal's values, by key of the spec.
        """
        trial = optuna.trial.FixedTrial(values)
        suggest_values(self._spec, trial)
        entry = create_trial(
            state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions
        )
        label = self._next_label()
        self._study.add_trial(entry)
        self._numbers[label] = self._entries()[-1].number

    def unfinished(self) -> dict[str, dict[str, Any]]:
        """Return the values of the proposals that have not ended, by label."""
        entries = self._entries()
        return {
            label: self._draw(label, entries[number]._trial_id)
            for label, number in self._numbers.items()
            if entries[number].state == TrialState.RUNNING
        }

    def propose(self) -> tuple[str, dict[str, Any]]:
        """Return the label of the next proposal, and its values by key of the spec."""
        label = self._next_label()
        self._study.sampler = _Sampler(self._spec, int(label))
        trial = self._study.ask()
        self._numbers[label] = trial.number
        suggest_values(self._spec, trial)
        return label, trial.params

    def report(self, label: str, objective: float, evaluation: int) -> None:
        """Add the objective of a proposal after an evaluation, counted from 1."""
        entry = self._entries()[self._numbers[label]]
        if entry.state == TrialState.RUNNING and evaluation not in entry.intermediate_values:
            self._study._storage.set_trial_intermediate_value(
                entry._trial_id, evaluation, objective
            )

    def end(self, label: str, objective: float | None) -> None:
        """Add the result of a proposal.

        A second result replaces nothing, unless the proposal failed before and ran again.

        Args:
            label: The proposal.
            objective: Its last objective; None: it failed for another reason than its
                configuration, so Optuna learns nothing from it.
        """
        entry = self._entries()[self._numbers[label]]
        if entry.state == TrialState.RUNNING:
            state = TrialState.FAIL if objective is None else TrialState.COMPLETE
            self._study.tell(entry.number, objective, state=state)
        elif entry.state == TrialState.FAIL and objective is not None:
            again = create_trial(
                params=entry.params,
                distributions=entry.distributions,
                value=objective,
                user_attrs={_AGAIN: label},
            )
            self._study.add_trial(again)
            self._numbers[label] = self._entries()[-1].number

    def _entries(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _next_label(self) -> str:
        return Trial.proposal(len(self._numbers) + 1, {}).label

    def _draw(self, label: str, trial_id: int) -> dict[str, Any]:
        """Return a proposal's values; draw those that the process did not draw before it ended."""
        self._study.sampler = _Sampler(self._spec, int(label))
        trial = optuna.Trial(self._study, trial_id)
        suggest_values(self._spec, trial)
        return trial.params


class _Sampler(optuna.samplers.BaseSampler):
    """Optuna's sampler for one proposal.

    Keys that are drawn independently have a seed each: if the process is killed halfway through a
    proposal, the remaining keys get the same values later.
    """

    def __init__(self, spec: SearchSpec, number: int) -> None:
        self._settings = spec.search
        self._number = number
        self._joint = self._seeded()

    def _seeded(self, key: str = "") -> optuna.samplers.BaseSampler:
        settings = self._settings
        entropy = (settings.seed, self._number, zlib.crc32(key.encode()))
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        if settings.sampler.name == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=settings.sampler.startup_trials,
            multivariate=True,
            # Parameters that exist only for some methods or kinds of view form their own groups.
            group=True,
            constant_liar=True,
        )

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, optuna.distributions.BaseDistribution]:
        """Return the keys to draw jointly."""
        return self._joint.infer_relative_search_space(study, trial)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, optuna.distributions.BaseDistribution],
    ) -> dict[str, Any]:
        """Draw the joint keys."""
        return self._joint.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        """Draw one other key."""
        one = self._seeded(param_name)
        return one.sample_independent(study, trial, param_name, param_distribution)


def suggest_values(spec: SearchSpec, trial: optuna.trial.BaseTrial) -> None:
    """Draw a value of every searched parameter that the trial's method and kind of view use.

    Args:
        spec: The search.
        trial: Optuna's trial; gets the values by key of the spec.
    """
    # The method first, then the kind of view: the other keys depend on them.
    first = ["method.name", "method.view.kind"]
    keys = [key for key in first if key in spec.search.parameters]
    keys += [key for key in spec.search.parameters if key not in first]
    method = spec.method
    for key in keys:
        section, _, name = key.partition(".")
        if section == "method" and not method.uses(name):
            continue
        given = spec.search.parameters[key]
        if isinstance(given, Categorical):
            value = trial.suggest_categorical(key, given.choices)
            if key == "method.name":
                method = method.model_copy(update={"name": value})
            elif key == "method.view.kind":
                view = method.view.model_copy(update={"kind": value})
                method = method.model_copy(update={"view": view})
        elif isinstance(given, Integer):
            trial.suggest_int(key, given.low, given.high)
        else:
            trial.suggest_float(key, given.low, given.high, log=isinstance(given, LogUniform))


def _mend(file: Path) -> None:
    """Remove what a killed process leaves behind: Optuna's lock and a torn last line."""
    file.with_name(f"{file.name}.lock").unlink(missing_ok=True)
    Journal(file).drop_torn_line()
