"""Confirmation: the best candidates of a search trained anew with fresh seeds, and the choice.

The first of many trials owes its place partly to luck (the winner's curse): trained again, it
scores lower. So the best candidates, the best soup and plain fine-tuning run with seeds that the
search did not use, in pairs that share data order and head, and the winner is chosen by its mean.
The pipeline runs it after the search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xlt_ray.config.spec import MOST_COMPARISON_SEEDS, SearchSpec
from xlt_ray.names import BASELINE, ZERO_SHOT_ACCURACY
from xlt_ray.search.leaderboard import Entry, baseline, complexity, distinct
from xlt_ray.search.trials import Trial, TrialStatus, seed_label


def confirmed_candidates(entries: Sequence[Entry], spec: SearchSpec) -> list[Entry]:
    """Return the candidates of a confirmation: plain fine-tuning, the best trials, the best soup.

    Args:
        entries: The ranked trials and soups of the search, in their order.
        spec: The search.

    Returns:
        Plain fine-tuning if it finished, then up to `search.confirmation.top` other single trials
        that differ in more than their seed, then the first-ranked soup if there is one; empty if
        there are not two of them to choose from.
    """
    ranked = [entry for entry in entries if entry.rank]
    singles = [e for e in ranked if not e.trial.soup and e.label != BASELINE]
    # With the same fresh seeds, equal configurations are equal trainings.
    singles = distinct(singles, lambda entry: entry.trial.configuration)
    soups = [entry for entry in ranked if entry.trial.soup]
    plain = baseline(entries)
    found = [
        *([plain] if plain else []),
        *singles[: spec.search.confirmation.top],
        *soups[:1],
    ]
    return found if len(found) > 1 else []


def confirmation_seeds(spec: SearchSpec) -> tuple[int, ...]:
    """Return the seeds of the confirmation: those after all that a comparison can have.

    They do not depend on the comparison that is asked for, which may change while resuming.
    """
    first = spec.highest_seed + MOST_COMPARISON_SEEDS + 1
    return tuple(range(first, first + spec.search.confirmation.seeds))


def confirmation_trials(
    candidates: Sequence[Entry], entries: Sequence[Entry], seeds: Sequence[int]
) -> list[Trial]:
    """Return the trials of a confirmation: each candidate and each member of a soup, once a seed.

    Args:
        candidates: Those of :func:`confirmed_candidates`.
        entries: The trials of the search.
        seeds: The fresh seeds.
    """
    labels = [entry.label for entry in candidates if not entry.trial.soup]
    labels += [name for entry in candidates for name in entry.members]
    trial_of = {entry.label: entry.trial for entry in entries}
    return [trial_of[label].with_seed(seed) for seed in seeds for label in dict.fromkeys(labels)]


@dataclass(frozen=True)
class Confirmed:
    """A candidate and its runs with the fresh seeds."""

    label: str
    """Its label in the search."""
    complexity: int
    """Its place among candidates that score alike, the simplest first."""
    searched: float
    """Its dev objective in the search, in [0, 1]."""
    objectives: np.ndarray
    """Its dev objectives with the fresh seeds (seeds,), in [0, 1]."""
    zero_shot: np.ndarray
    """Its test zero-shot means with the fresh seeds (seeds,), in [0, 1]."""

    @property
    def mean(self) -> float:
        """Mean dev objective over the fresh seeds."""
        return float(self.objectives.mean())


@dataclass(frozen=True)
class Choice:
    """The winner of a confirmation."""

    winner: Confirmed
    """The simplest candidate that the best does not beat by more than the noise."""
    best: Confirmed
    """The candidate with the highest mean dev objective."""

    @property
    def tied(self) -> bool:
        """Whether a simpler candidate was chosen than the best."""
        return self.winner.label != self.best.label


def choose(candidates: Sequence[Confirmed]) -> Choice:
    """Choose by the mean dev objective; ties within noise go to the simpler candidate.

    A candidate ties with the best if their mean paired difference is at most its standard error
    over the seeds (the one-standard-error rule of Breiman et al., 1984). With one seed, only equal
    objectives tie.

    Args:
        candidates: At least one; all with the same seeds.
    """
    best = max(candidates, key=lambda one: (one.mean, -one.complexity))

    def ties(one: Confirmed) -> bool:
        differences = best.objectives - one.objectives
        error = 0.0
        if len(differences) > 1:
            error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
        # Rounding: equal objectives may differ in the last digit.
        return float(differences.mean()) <= error + 1e-9

    def leads(one: Confirmed) -> bool:
        """Whether nothing simpler scores higher: the winner is never below plain fine-tuning."""
        simpler = (other for other in candidates if other.complexity < one.complexity)
        return all(one.mean >= other.mean for other in simpler)

    tied = [
        one for one in candidates if one.complexity < best.complexity and ties(one) and leads(one)
    ]
    winner = min(tied, key=lambda one: (one.complexity, -one.mean), default=best)
    return Choice(winner, best)


def confirmed(
    candidates: Sequence[Entry], runs: Sequence[Entry], seeds: Sequence[int]
) -> tuple[list[Confirmed], list[int]]:
    """Return the candidates with their runs, over the seeds that all of them finished.

    A candidate that failed with every seed is left out.

    Args:
        candidates: Those of :func:`confirmed_candidates`.
        runs: The confirmation's finished trials and soups, labelled `<candidate>-seed<seed>`.
        seeds: The fresh seeds.

    Returns:
        The candidates, and the seeds; both empty if no seed has all candidates, or only one
        candidate is left.
    """
    finished = {run.label: run for run in runs if run.status == TrialStatus.FINISHED}

    def label(entry: Entry, seed: int) -> str:
        return seed_label(entry.label, seed)

    left = [e for e in candidates if any(label(e, seed) in finished for seed in seeds)]
    whole = [seed for seed in seeds if all(label(entry, seed) in finished for entry in left)]
    if not whole or len(left) < 2:
        return [], []
    found = []
    for entry in left:
        repeats = [finished[label(entry, seed)] for seed in whole]
        found.append(
            Confirmed(
                entry.label,
                complexity(entry.trial),
                entry.objective or 0.0,
                np.array([repeat.objective for repeat in repeats]),
                np.array([repeat.test[ZERO_SHOT_ACCURACY] for repeat in repeats]),
            )
        )
    return found, whole
