"""Distributions: ranges that fit the searched key, and the errors for those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.small_search import SMALL, complaint
from xlt_ray.config.loading import (
    load_spec,
)


@pytest.mark.parametrize(
    ("key", "distribution", "parts"),
    [
        ("method.push_margn", "{distribution: uniform, low: 0, high: 1}", ["'push_margin'"]),
        (
            "method.view.radius.x",
            "{distribution: uniform, low: 0, high: 1}",
            ["method.view.radius"],
        ),
        ("metod.push_margin", "{distribution: uniform, low: 0, high: 1}", ["only keys of method"]),
        ("search.seed", "{distribution: int, low: 0, high: 1}", ["only keys of method"]),
        ("method.reduction", "{distribution: categorical, choices: [a]}", ["only keys of method"]),
        ("method.name", "{distribution: categorical, choices: [ear, eer]}", ["'eer'", "'ear'"]),
        ("method.name", "{distribution: categorical, choices: [ear, 1]}", ["not valid"]),
        ("method.name", "{distribution: categorical, choices: [ear, null]}", ["not valid"]),
        ("method.name", "{distribution: int, low: 0, high: 1}", ["name: 0", "not valid"]),
        ("training.max_length", "{distribution: int, low: 8, high: 64}", ["training.max_length"]),
        ("method.pull_weight", "{distribution: uniform, low: -1, high: 1}", ["-1", ">= 0"]),
        ("method.view.radius", "{distribution: uniform, low: 0, high: 1.1}", ["1.1", "<= 1"]),
        ("method.pull_weight", "{distribution: uniform, low: 1, high: 1}", ["1.0", "below"]),
        ("method.pull_weight", "{distribution: uniform, low: 2, high: 1}", ["2.0", "below", "1.0"]),
        ("method.pull_layer", "{distribution: int, low: 3, high: 3}", ["3", "below"]),
        ("method.pull_layer", "{distribution: int, low: 0.5, high: 3}", ["low", "0.5"]),
        ("method.pull_weight", "{distribution: log_uniform, low: 0, high: 1}", ["low", "> 0"]),
        ("method.pull_weight", "{distribution: unifrom, low: 0, high: 1}", ["'uniform'"]),
        ("method.pull_weight", "{low: 0, high: 1}", ["distribution", "missing"]),
        ("method.pull_weight", "{distribution: uniform, low: 0}", ["high", "missing"]),
        ("method.pull_weight", "{distribution: uniform, low: 0, hi: 1}", ["'hi'", "'high'"]),
        ("method.pull_weight", "{distribution: categorical, choices: []}", ["choices", "1 item"]),
        ("method.pull_weight", "{distribution: categorical, choices: [1, -2]}", ["-2", ">= 0"]),
        ("training.epochs", "{distribution: categorical, choices: [1, '2']}", ["'2'", "write 2"]),
        ("training.epochs", "{distribution: categorical, choices: [2.0]}", ["2.0", "write 2"]),
        ("training.epochs", "{distribution: categorical, choices: [true]}", ["expected a number"]),
        (
            "training.weight_decay",
            "{distribution: categorical, choices: [1e-4, '1e-3']}",
            ["'1e-3'", "write 0.001"],
        ),
        (
            "training.trim_vocabulary",
            "{distribution: categorical, choices: ['yes', false]}",
            ["'yes'", "write true"],
        ),
        ("method.push_distance", "{distribution: categorical, choices: [relativ]}", ["'relative'"]),
        ("method.push_distance", "{distribution: uniform, low: 0, high: 1}", ["push_distance"]),
        # Both ends are whole numbers, what is drawn between them is not.
        ("training.batch_size", "{distribution: uniform, low: 8, high: 64}", ["int"]),
        ("training.batch_size", "{distribution: log_uniform, low: 8, high: 64}", ["int"]),
        ("training.trim_vocabulary", "{distribution: uniform, low: 0, high: 1}", ["categorical"]),
    ],
)
def test_searched_key_or_range_that_does_not_fit(
    small: Path, key: str, distribution: str, parts: list[str]
) -> None:
    small.write_text(f"{SMALL}    {key}: {distribution}\n")
    message = complaint(small)
    for part in [str(small), "search.parameters", key.rpartition(".")[2], *parts]:
        assert part in message, message


@pytest.mark.parametrize(
    ("key", "distribution"),
    [
        ("method.view.radius", {"distribution": "categorical", "choices": ["paper", 0.5]}),
        ("method.pull_layer", {"distribution": "int", "low": 0, "high": 11}),
        ("training.batch_size", {"distribution": "int", "low": 8, "high": 64}),
        ("training.trim_vocabulary", {"distribution": "categorical", "choices": [True, False]}),
        ("method.name", {"distribution": "categorical", "choices": ["ear", "plain"]}),
        ("method.push_weight", {"distribution": "log_uniform", "low": 0.1, "high": 10}),
        ("training.learning_rate", {"distribution": "uniform", "low": 1e-5, "high": 1e-4}),
    ],
)
def test_searched_ranges_that_fit(small: Path, key: str, distribution: dict[str, Any]) -> None:
    spec = load_spec(str(small), {f"search.parameters.{key}": distribution})
    assert spec.search.parameters[key].model_dump(mode="json") == distribution
    assert set(spec.search.parameters) == {"method.push_margin", "training.learning_rate", key}
