"""Model soups: the mean of the weights of several trained models, scored as a trial is.

Averaging needs no choice between trials that dev data cannot tell apart (Wortsman et al., "Model
soups", ICML 2022; Schmidt et al., "Free Lunch", ACL 2023, for cross-lingual transfer). The models
must have started from the same encoder and the same head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_model

from xlt_ray.evaluation.predict import class_probabilities
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.evaluation.scores import dev_scores, final_scores
from xlt_ray.names import OBJECTIVE
from xlt_ray.training.selection import average_weights

if TYPE_CHECKING:
    import numpy as np

    from xlt_ray.data.evaluation_set import EvaluationSet
    from xlt_ray.distributed import Workers
    from xlt_ray.training.build import TrialParts

WEIGHTS, PREDICTIONS = "model.safetensors", "predictions.npz"
"""Files of a soup, as of the last checkpoint of a trial."""


@dataclass(frozen=True)
class Soup:
    """A soup that was made and scored."""

    members: tuple[str, ...]
    """The averaged models, in the order in which they were added."""
    metrics: Mapping[str, float]
    """`objective`, `selected/...` (dev) and `test/...`, as of a finished trial."""


def make_soup(
    parts: TrialParts,
    weights: Mapping[str, Path],
    folder: Path,
    *,
    objective: str,
    greedy: bool,
    workers: Workers,
) -> Soup:
    """Average models, score the result on dev data and, once, on test data.

    Args:
        parts: A classifier of their kind, which gets the weights, and the dev and test sets.
        weights: The models' weights by name; for a greedy soup the best model first.
        folder: An existing folder; gets :data:`WEIGHTS` and :data:`PREDICTIONS`.
        objective: The dev metric that a greedy soup must not lose.
        greedy: Whether to add models one by one, each only if the dev objective does not fall;
            otherwise all are averaged.
        workers: This worker.

    Raises:
        ValueError: If the models' weights differ in names or shapes.
    """
    classifier, target = parts.objective.classifier, folder / WEIGHTS

    def probabilities(data: EvaluationSet) -> np.ndarray:
        load_model(classifier, str(target))
        return class_probabilities(classifier, data.inputs, pad_id=data.pad_id, workers=workers)

    def dev() -> dict[str, float]:
        return dev_scores(probabilities(parts.dev), parts.dev)

    scored: dict[tuple[str, ...], dict[str, float]] = {}

    def score(members: Sequence[str]) -> float:
        average_weights([weights[name] for name in members], target)
        scored[tuple(members)] = found = dev()
        return found[objective]

    members = greedy_members(list(weights), score) if greedy else tuple(weights)
    average_weights([weights[name] for name in members], target)
    metrics = scored.get(members) or dev()
    found = probabilities(parts.test)
    Predictions.of(found, parts.test).save(folder / PREDICTIONS)
    selected = {"selected/" + name.removeprefix("dev/"): v for name, v in metrics.items()}
    tested = final_scores(found, parts.test)
    return Soup(members, {OBJECTIVE: metrics[objective], **selected, **tested})


def greedy_members(
    candidates: Sequence[str], score: Callable[[Sequence[str]], float]
) -> tuple[str, ...]:
    """Return the members of a greedy soup (Wortsman et al., 2022, recipe 1).

    Args:
        candidates: Models, the best first; at least one.
        score: Returns the score of the mean of some models; larger is better.
    """
    members = [candidates[0]]
    best = score(members)
    for name in candidates[1:]:
        found = score([*members, name])
        if found >= best:
            members.append(name)
            best = found
    return tuple(members)
