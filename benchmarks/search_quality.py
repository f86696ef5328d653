"""How much training the search needs for what random search finds, on recorded trainings.

    python -m benchmarks.search_quality

Sampler and pruner are those of a search, asked and told as Ray Tune does it. A proposed
configuration gets the curve of the nearest recorded training (benchmarks/search_table.py), so that
every objective is one that a real training reached. Random search without pruning trains some
configurations to their end; the other sides go on until they have a training, at its end, as good
as its best one.
"""

from __future__ import annotations

import heapq
import itertools
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.measuring import show
from benchmarks.search_table import TABLE, to_unit
from xlt_ray.spec import OBJECTIVE, SearchSpec, load_spec


@dataclass(frozen=True)
class Table:
    """Recorded trainings."""

    points: np.ndarray
    """Their places in the unit cube of the search space (trainings, parameters)."""
    steps: np.ndarray
    """Steps done at each evaluation (evaluations,)."""
    scores: np.ndarray
    """Best score up to each evaluation: what a trial reports (trainings, evaluations)."""
    spec: SearchSpec
    """The search they belong to."""

    def curve(self, values: dict[str, Any]) -> np.ndarray:
        """The scores of the training nearest to a configuration (evaluations,)."""
        parameters = self.spec.search.parameters
        place = np.array([to_unit(parameters[key], values[key]) for key in parameters])
        curve: np.ndarray = self.scores[np.square(self.points - place).sum(1).argmin()]
        return curve


def load_table(file: Path, objective: str) -> Table:
    """Read recorded trainings.

    Args:
        file: A training a line.
        objective: The dev metric that is searched by.
    """
    trainings = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    spec = load_spec("demo", {"search.objective": objective})
    parameters = spec.search.parameters
    return Table(
        points=np.array(
            [
                [to_unit(parameters[key], training["values"][key]) for key in parameters]
                for training in trainings
            ]
        ),
        steps=np.array([int(report["step"]) for report in trainings[0]["curve"]]),
        scores=np.maximum.accumulate(
            [[report[objective] for report in training["curve"]] for training in trainings], axis=1
        ),
        spec=spec,
    )


def ends(table: Table, changes: dict[str, Any], concurrent: int) -> Iterator[tuple[int, float]]:
    """Search without end.

    Args:
        table: What trainings give.
        changes: Keys of the spec to change.
        concurrent: Trials side by side, all equally fast.

    Yields:
        At every end of a trial that was trained to its end: steps trained so far, by all trials,
        and its score.
    """
    from xlt_ray.search import Pruner, Sampler
    from xlt_ray.trial import trial_values

    spec = load_spec("demo", {"search.objective": table.spec.search.objective, **changes})
    sampler = Sampler(spec, fixed=[])
    pruner = Pruner(spec, len(table.steps), fixed=set())
    numbers = itertools.count()
    running: list[tuple[int, int, Any, np.ndarray, int]] = []

    def start(now: int) -> None:
        number = next(numbers)
        config = sampler.suggest(f"{number}")
        assert config is not None
        # Tune gives configurations nested; the keys of a spec are flat.
        trial = SimpleNamespace(trial_id=f"{number}", config=config)
        pruner.on_trial_add(None, trial)  # type: ignore[arg-type]
        curve = table.curve(flat(trial_values(config)))
        heapq.heappush(running, (now + int(table.steps[0]), number, trial, curve, 0))

    def flat(values: dict[str, Any]) -> dict[str, Any]:
        from xlt_ray.spec import flatten

        return flatten(values)

    for _ in range(concurrent):
        start(0)
    trained = 0
    total = int(table.steps[-1])
    while True:
        now, number, trial, curve, evaluation = heapq.heappop(running)
        before = table.steps[evaluation - 1] if evaluation else 0
        trained += int(table.steps[evaluation] - before)
        result = {
            OBJECTIVE: float(curve[evaluation]),
            "step": int(table.steps[evaluation]),
            "steps": total,
            "evaluations": evaluation + 1,
            "training_iteration": evaluation + 1,
        }
        decision = pruner.on_trial_result(None, trial, result)
        ended = result["step"] >= total
        if not ended and decision != "STOP":
            sampler.on_trial_result(trial.trial_id, result)
            later = now + int(table.steps[evaluation + 1] - table.steps[evaluation])
            heapq.heappush(running, (later, number, trial, curve, evaluation + 1))
            continue
        sampler.on_trial_complete(trial.trial_id, result)
        if ended:
            pruner.on_trial_complete(None, trial, result)  # type: ignore[arg-type]
            yield trained, float(curve[evaluation])
        start(now)


RANDOM = {"search.sampler.name": "random", "search.early_stopping.enabled": False}


def main(
    file: Annotated[Path, typer.Argument(help="Table of recorded trainings.")] = TABLE,
    objective: Annotated[str, typer.Option(help="Searched by.")] = "dev/accuracy/en",
    trials: Annotated[int, typer.Option(help="Trials of random search.")] = 32,
    seeds: Annotated[int, typer.Option(help="Seeds of the samplers.")] = 21,
    concurrent: Annotated[int, typer.Option(help="Trials side by side.")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures.")] = None,
) -> None:
    """Compare what samplers and pruners need."""
    table = load_table(file, objective)
    sides: dict[str, dict[str, Any]] = {
        "random, no pruning": RANDOM,
        "random, ASHA": {"search.sampler.name": "random"},
        "TPE, no pruning": {"search.early_stopping.enabled": False},
        "TPE, ASHA: the default": {},
    }
    budget = trials * int(table.steps[-1])
    needed: dict[str, list[float]] = {name: [] for name in sides}
    for seed in range(seeds):
        random = ends(table, {**RANDOM, "search.seed": seed}, concurrent)
        aim = max(score for _, score in itertools.islice(random, trials))
        for name, changes in sides.items():
            run = ends(table, {**changes, "search.seed": 1000 + seed}, concurrent)
            # Some never find it: ten times the steps are enough to tell.
            found = itertools.takewhile(lambda end: end[0] < 10 * budget, run)
            needed[name].append(
                next((steps for steps, score in found if score >= aim), 10 * budget) / budget
            )
    rows = [
        {
            "search": name,
            "steps of random search's": f"{statistics.median(shares):.2f}",
            "quartiles": " to ".join(f"{q:.2f}" for q in np.quantile(shares, [0.25, 0.75])),
            "seeds within a third": f"{sum(share <= 1 / 3 for share in shares)} of {seeds}",
        }
        for name, shares in needed.items()
    ]
    facts = {
        "table": f"{len(table.points)} trainings of the demo, objective {objective}, "
        f"at their ends {table.scores[:, -1].min():.3f} to {table.scores[:, -1].max():.3f}",
        "random search": f"{trials} trials of {table.steps[-1]} steps",
        "side by side": str(concurrent),
    }
    show("The search", rows, json_file, facts)


if __name__ == "__main__":
    typer.run(main)
