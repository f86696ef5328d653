"""How much training the search needs for what random search finds, on recorded trainings.

    python -m benchmarks.search_quality

Sampler and pruner are those of a search, asked and told as Ray Tune does it. What a proposed
configuration scores is read off recorded trainings (benchmarks/search_table.py): a Gaussian process
through them, and on top the deviation of one of them from it, so that the scores are as noisy as
real ones. A configuration's true score is the Gaussian process alone: what the mean over many
seeds would come to. The aim is the best true score that random search without pruning reaches with
some trials, the median over its seeds. Every side then goes on until it has trained a configuration
to its end whose true score is as good.
"""

from __future__ import annotations

import heapq
import itertools
import json
import statistics
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.measuring import show
from benchmarks.search_table import TABLE, search_of, to_unit
from xlt_ray.names import OBJECTIVE


class Surface:
    """What trainings score, anywhere in their search space.

    Args:
        file: Recorded trainings, one a line, with their search beside it.
        objective: The dev metric that is searched by.
        noise: Whether a configuration deviates from the smooth surface as a recorded one does.
        truth: The recorded metric that true scores are of; None: the objective.
    """

    def __init__(
        self, file: Path, objective: str, noise: bool = True, truth: str | None = None
    ) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        trainings = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        self.file = file
        spec = search_of(file)
        self.parameters = spec.search.parameters
        # What a trial reports is the score of its selected weights.
        self._keeps_best = spec.training.average_last is None
        self.steps = np.array([int(report["step"]) for report in trainings[0]["curve"]])
        """Steps done at each evaluation (evaluations,)."""
        self.scores = np.array(
            [[report[objective] for report in training["curve"]] for training in trainings]
        )
        """Recorded scores (trainings, evaluations)."""
        ends = [training["curve"][-1][truth or objective] for training in trainings]
        places = np.array([self.place(training["values"]) for training in trainings])
        kernel = ConstantKernel() * RBF(np.ones(places.shape[1]), (0.3, 10)) + WhiteKernel()
        with warnings.catch_warnings():
            # A parameter at its bound is an answer: one that does not matter, or no noise.
            warnings.simplefilter("ignore", ConvergenceWarning)
            *self._smooth, self._true = [
                GaussianProcessRegressor(
                    kernel, normalize_y=True, n_restarts_optimizer=3, random_state=0
                ).fit(places, scores)
                for scores in (*self.scores.T, np.array(ends))
            ]
        self.deviations = self.scores - self._predicted(places)
        """Recorded scores less the smooth surface (trainings, evaluations)."""
        self._noise = noise

    def place(self, values: Mapping[str, Any]) -> np.ndarray:
        """A configuration's place in the unit cube (parameters,)."""
        return np.array([to_unit(self.parameters[key], values[key]) for key in self.parameters])

    def _predicted(self, places: np.ndarray) -> np.ndarray:
        return np.stack([process.predict(places) for process in self._smooth], axis=1)

    def true(self, values: Mapping[str, Any]) -> float:
        """The true score of a configuration at its end."""
        return float(self._true.predict(self.place(values)[None])[0])

    def curve(self, values: Mapping[str, Any]) -> np.ndarray:
        """What a trial reports at each evaluation (evaluations,): the best score up to it, or, if
        the trial averages its last weights, the score of their mean, which may fall.

        A function of the configuration: asked twice, it is the same.
        """
        place = self.place(values)
        scores = self._predicted(place[None])[0]
        if self._noise:
            random = np.random.default_rng(place.view(np.uint64))
            scores = scores + self.deviations[random.integers(len(self.deviations))]
        return np.maximum.accumulate(scores) if self._keeps_best else scores


def ends(surface: Surface, changes: dict[str, Any], concurrent: int) -> Iterator[tuple[int, float]]:
    """Search without end.

    Args:
        surface: What trainings score.
        changes: Keys of the spec to change.
        concurrent: Trials side by side, all equally fast.

    Yields:
        At every end of a trial that was trained to its end: steps trained so far, by all trials,
        and its true score.
    """
    from ray.tune.schedulers import TrialScheduler

    from xlt_ray.cluster.pruner import Pruner
    from xlt_ray.cluster.tune import Sampler
    from xlt_ray.search.study import Study
    from xlt_ray.search.trials import Trial

    spec = search_of(surface.file, changes)
    steps = surface.steps.tolist()
    sampler = Sampler(Study(spec), waiting=[])
    pruner = Pruner(spec, len(steps), fixed=set())
    numbers = itertools.count()
    running: list[tuple[int, int, Any, Mapping[str, Any], int]] = []

    def start(now: int) -> None:
        number = next(numbers)
        config = sampler.suggest(str(number))
        assert config is not None
        trial = SimpleNamespace(trial_id=str(number), config=config)
        pruner.on_trial_add(None, trial)  # type: ignore[arg-type]
        values = Trial.from_config(config).values
        heapq.heappush(running, (now + steps[0], number, trial, values, 0))

    for _ in range(concurrent):
        start(0)
    trained = 0
    while True:
        now, number, trial, values, evaluation = heapq.heappop(running)
        trained += steps[evaluation] - (steps[evaluation - 1] if evaluation else 0)
        result = {
            OBJECTIVE: float(surface.curve(values)[evaluation]),
            "step": steps[evaluation],
            "steps": steps[-1],
            "evaluations": evaluation + 1,
            "training_iteration": evaluation + 1,
        }
        ended = evaluation + 1 == len(steps)
        if not ended and pruner.on_trial_result(None, trial, result) != TrialScheduler.STOP:
            sampler.on_trial_result(trial.trial_id, result)
            later = now + steps[evaluation + 1] - steps[evaluation]
            heapq.heappush(running, (later, number, trial, values, evaluation + 1))
            continue
        sampler.on_trial_complete(trial.trial_id, result)
        if ended:
            pruner.on_trial_complete(None, trial, result)
            yield trained, surface.true(values)
        start(now)


RANDOM = {"search.sampler.name": "random", "search.early_stopping.enabled": False}
SIDES: dict[str, dict[str, Any]] = {
    "random, no pruning": RANDOM,
    "random, ASHA": {"search.sampler.name": "random"},
    "TPE, no pruning": {"search.early_stopping.enabled": False},
    "TPE, ASHA": {},
}
_PATIENCE = 4
"""How many times random search's steps a side may take: some seeds never reach the aim."""


def shares(
    surface: Surface, sides: Mapping[str, dict[str, Any]], trials: int, seeds: int, concurrent: int
) -> dict[str, list[float]]:
    """Steps that each side needs to the aim, by seed, as shares of random search's.

    Args:
        surface: What trainings score.
        sides: Name to keys of the spec to change.
        trials: Trials of random search.
        seeds: How many seeds.
        concurrent: Trials side by side.
    """
    budget = trials * int(surface.steps[-1])
    reached = [
        max(
            score
            for _, score in itertools.islice(
                ends(surface, {**RANDOM, "search.seed": seed}, concurrent), trials
            )
        )
        for seed in range(seeds)
    ]
    aim = statistics.median(reached)

    def needed(changes: dict[str, Any], seed: int) -> float:
        run = ends(surface, {**changes, "search.seed": seed}, concurrent)
        for trained, score in run:
            if score >= aim or trained >= _PATIENCE * budget:
                return min(trained / budget, float(_PATIENCE))
        raise AssertionError("a search without end has ended")

    # Other seeds than those that set the aim.
    return {
        name: [needed(changes, seeds + seed) for seed in range(seeds)]
        for name, changes in sides.items()
    }


def main(
    file: Annotated[
        Path, typer.Argument(help="Recorded trainings; their search is beside it.")
    ] = TABLE,
    objective: Annotated[str, typer.Option(help="Searched by.")] = "dev/accuracy/en",
    truth: Annotated[
        str | None, typer.Option(help="Judged by its mean over seeds; default: the objective.")
    ] = None,
    trials: Annotated[int, typer.Option(help="Trials of random search.")] = 32,
    seeds: Annotated[int, typer.Option(help="Seeds of the samplers.")] = 31,
    concurrent: Annotated[int, typer.Option(help="Trials side by side.")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures.")] = None,
) -> None:
    """Compare what samplers and pruners need."""
    rows = [{"search": name} for name in SIDES]
    for noise, kind in ((True, "noisy"), (False, "smooth")):
        surface = Surface(file, objective, noise, truth)
        found = shares(surface, SIDES, trials, seeds, concurrent)
        for row in rows:
            own = found[row["search"]]
            low, high = np.quantile(own, [0.25, 0.75])
            row[f"{kind}: median"] = f"{statistics.median(own):.2f}"
            row[f"{kind}: quartiles"] = f"{low:.2f} to {high:.2f}"
            row[f"{kind}: within a third"] = f"{sum(share <= 1 / 3 for share in own)} of {seeds}"
    last = surface.scores[:, -1]
    facts = {
        "cells": "training steps until the aim is reached, as a share of random search's; "
        "median and quartiles over seeds, and how many seeds need a third at most",
        "trainings": f"{len(last)}, {objective} at their ends {last.min():.3f} to "
        f"{last.max():.3f}, scattered by {surface.deviations[:, -1].std():.3f} about the surface",
        "judged by": f"the true score, the Gaussian process through {truth or objective}",
        "random search": f"{trials} trials of {surface.steps[-1]} steps, none stopped early",
        "side by side": str(concurrent),
    }
    show("The search", rows, json_file, facts)


if __name__ == "__main__":
    typer.run(main)
