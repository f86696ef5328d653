"""Made-up search results, for the tests of figures and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlt_ray.config.method import MethodSpec
from xlt_ray.config.space import Categorical, Distribution, Integer, LogUniform, Uniform
from xlt_ray.config.spec import SearchSpec
from xlt_ray.names import LEDGER
from xlt_ray.names import OBJECTIVE as RANKED_BY
from xlt_ray.search.leaderboard import Entry, ranked
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.trials import Trial, TrialStatus

OBJECTIVE = "dev/accuracy/en"
LANGUAGES = (
    *("en", "ar", "bg", "de", "el", "es", "fr", "hi"),
    *("ru", "sw", "th", "tr", "ur", "vi", "zh"),
)
PARAMETERS: dict[str, Distribution] = {
    "method.push_margin": Uniform(distribution="uniform", low=0.0, high=0.5),
    "method.pull_weight": LogUniform(distribution="log_uniform", low=0.1, high=10.0),
    "method.view.radius": Uniform(distribution="uniform", low=0.1, high=1.0),
}
FURTHER: dict[str, Distribution] = PARAMETERS | {
    "method.pull_layer": Integer(distribution="int", low=0, high=11),
    "method.name": Categorical(
        distribution="categorical", choices=("ear", "ear-no-push", "ear-no-pull")
    ),
}
KINDS: dict[str, Distribution] = PARAMETERS | {
    "method.view.kind": Categorical(
        distribution="categorical", choices=("synonym", "random", "adversarial")
    ),
    "method.view.noise_radius": Uniform(distribution="uniform", low=0.5, high=2.0),
}
"""Two radii, of which a proposal has the one or the other."""
METHODS: dict[str, Distribution] = PARAMETERS | {
    "method.name": Categorical(
        distribution="categorical", choices=("plain", "rs-da", "rs-rp", "ear")
    ),
    "method.view.noise_radius": LogUniform(distribution="log_uniform", low=0.5, high=2.0),
    "method.pull_layer": Integer(distribution="int", low=0, high=11),
}
"""Methods, of which each has keys of its own; no key but the name is common to all."""
ALL_BASELINES = (
    *("plain", "plain-long", "rs-da", "rs-rp", "adv"),
    *("ear-no-push", "ear-no-pull", "ear-no-robust"),
)
SPACE: dict[str, dict[str, Any]] = {
    "method.push_margin": {"distribution": "uniform", "low": 0.1, "high": 0.5},
    "method.view.radius": {"distribution": "uniform", "low": 0.2, "high": 1.0},
}
"""A space of two keys, as a search's YAML has it."""


def spec_of(
    parameters: dict[str, Any], method: dict[str, Any] | None = None, **search: Any
) -> SearchSpec:
    """A search over some parameters, of which nothing is run."""
    return SearchSpec.model_validate(
        {
            "name": "any",
            "task": "demo",
            "model": "some/encoder",
            "method": method or {},
            "search": {"parameters": parameters, **search},
        }
    )


def entry(
    label: str,
    languages: Sequence[str],
    status: str = "finished",
    objective: float | None = 0.8,
    values: Mapping[str, Any] | None = None,
) -> Entry:
    """A trial; its accuracies are drawn anew for each label."""
    rng = np.random.default_rng(sum(map(ord, label)))
    test: dict[str, float] = {}
    if status == "finished":
        test = {f"accuracy/{code}": float(rng.uniform(0.5, 0.85)) for code in languages}
        test["accuracy/mean"] = float(np.mean(list(test.values())))
        test["accuracy/zero_shot_mean"] = float(
            np.mean([test[f"accuracy/{code}"] for code in languages[1:]])
        )
    return Entry(Trial.labelled(label, values), TrialStatus(status), objective, test, {}, {})


def search(
    trials: int,
    languages: Sequence[str] = LANGUAGES,
    parameters: dict[str, Distribution] = PARAMETERS,
    baselines: Sequence[str] = ("plain",),
) -> list[Entry]:
    """A ranked search: the paper's setting, baselines and proposals, of which every third was
    pruned and the fifth, if there is one, has failed."""
    rng = np.random.default_rng(trials)
    found = [entry("paper", languages, values=Trial.of_method("ear").values)]
    found += [entry(label, languages, objective=0.83) for label in baselines]
    for number in range(1, trials + 1):
        values: dict[str, Any] = {}
        for key, given in parameters.items():
            if isinstance(given, Categorical):
                values[key] = given.choices[rng.integers(len(given.choices))]
            elif isinstance(given, Integer):
                values[key] = int(rng.integers(given.low, given.high + 1))
            else:
                values[key] = float(rng.uniform(given.low, given.high))
        status = "failed" if number == 5 else "finished" if number % 3 else "pruned"
        objective = None if number == 5 else float(rng.uniform(0.5, 0.9))
        found.append(entry(f"{number:02d}", languages, status, objective, values))
    return ranked(found)


def curves(entries: Sequence[Entry]) -> dict[str, list[tuple[float, float]]]:
    """Ten dev evaluations of every trial; of a pruned one three."""
    result = {}
    for row in entries:
        if row.objective is not None:
            count = 3 if row.status == "pruned" else 10
            values = row.objective - 0.3 * np.linspace(1, 0, count) ** 2
            result[row.label] = [(13.0 * (n + 1), float(v)) for n, v in enumerate(values)]
    return result


def of_kinds(trials: int) -> list[Entry]:
    """A ranked search over :data:`KINDS`."""
    entries = search(trials, parameters=KINDS)
    for row in entries:
        if row.trial.proposed:
            synonyms = row.values["method.view.kind"] == "synonym"
            lacking = "method.view.noise_radius" if synonyms else "method.view.radius"
            assert isinstance(row.values, dict)
            del row.values[lacking]
    return entries


def of_methods(trials: int) -> list[Entry]:
    """A ranked search over :data:`METHODS`."""
    entries = search(trials, parameters=METHODS)
    for row in entries:
        if row.trial.proposed:
            method = MethodSpec(name=row.values["method.name"])
            assert isinstance(row.values, dict)
            for key in list(row.values):
                if not method.uses(key.removeprefix("method.")):
                    del row.values[key]
    return entries


def named(key: str) -> str:
    """The name of a key in a figure."""
    return key.split(".")[-1].replace("_", " ")


def proposals_of(entries: Sequence[Entry], *statuses: str) -> list[Entry]:
    """The sampler's trials that have one of the statuses, in their order."""
    found = [row for row in entries if row.trial.proposed and row.status in statuses]
    return sorted(found, key=lambda row: row.label)


def ledger_of(folder: Path, *events: tuple[str, dict[str, Any], list[float], str]) -> Ledger:
    """A ledger of trials: label, values, objectives of their evaluations, how they ended."""
    ledger = Ledger(folder / LEDGER)
    for label, values, objectives, end in events:
        ledger.start(Trial.labelled(label, values))
        for number, objective in enumerate(objectives, 1):
            metrics = {"evaluations": number, RANKED_BY: objective, "step": number, "steps": 10}
            ledger.evaluated(label, metrics)
        status, _, reason = end.partition(": ")
        if status != "running":
            ledger.end(label, TrialStatus(status), reason)
    return ledger
