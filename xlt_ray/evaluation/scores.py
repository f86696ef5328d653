"""Scores of class probabilities: accuracy, likelihood and Brier score, per place of a split.

The trainer computes them at every evaluation; a search ranks its trials by one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xlt_ray.names import BOTH, VIRTUAL, ZERO_SHOT_MEAN

if TYPE_CHECKING:
    from xlt_ray.data.evaluation_set import EvaluationSet

MEASURES = ("accuracy", "likelihood", "brier")
"""The measures of :func:`dev_scores`; each is in [0, 1], and larger is better."""

_LEAST_PROBABILITY = 1e-6
"""Probabilities below it count as it, so that one text cannot decide a mean."""


def item_scores(measure: str, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return a score of each text that is to be averaged; larger is better.

    Args:
        measure: One of :data:`MEASURES`.
        probabilities: Of every class, in [0, 1] (texts, classes).
        labels: Gold class ids (texts,).

    Returns:
        `accuracy`: 1 where the likeliest class is the gold one, else 0. `likelihood`: the natural
        logarithm of the gold class's probability, at least log(1e-6). `brier`: 1 - B / 2, with
        the text's Brier score B = sum of (p - y)^2 over the classes, in [0, 2] (Brier, Monthly
        Weather Review 78, 1950).

    Raises:
        ValueError: If there is no such measure.
    """
    gold = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    if measure == "accuracy":
        return (probabilities.argmax(1) == labels).astype(np.float64)
    if measure == "likelihood":
        return np.log(np.maximum(gold, _LEAST_PROBABILITY))
    if measure == "brier":
        # sum (p - y)^2 = sum p^2 - 2 p_gold + 1
        squares = np.square(probabilities.astype(np.float64)).sum(1)
        return 1 - (squares - 2 * gold + 1) / 2
    raise ValueError(f"'{measure}' is not one of {', '.join(MEASURES)}")


def dev_scores(probabilities: np.ndarray, data: EvaluationSet) -> dict[str, float]:
    """Return the dev metrics that a search can rank its trials by, apart from the accuracies.

    Args:
        probabilities: Of every class, in [0, 1] (texts, classes).
        data: The dev texts' gold classes and languages, with virtual views of the source's texts.

    Returns:
        `dev/likelihood/<place>`, the geometric mean of the gold classes' probabilities, and
        `dev/brier/<place>`, 1 - B / 2 with the mean Brier score B; both in [0, 1]. A place is the
        source language, its virtual views, both (`<source>_and_virtual`, the mean of the two
        places, in which each weighs the same), and `zero_shot_mean`, the mean over the other
        languages if there are any. Also `dev/accuracy/<source>_and_virtual`.
    """
    metrics: dict[str, float] = {}
    for measure in MEASURES:
        items = item_scores(measure, probabilities, data.labels)
        mean = {
            code: float(items[data.language == index].mean())
            for index, code in enumerate(data.languages)
        }
        source, virtual = mean.pop(data.source), mean.pop(data.source + VIRTUAL)
        places = {
            data.source: source,
            data.source + VIRTUAL: virtual,
            data.source + BOTH: (source + virtual) / 2,
        }
        if mean:
            places[ZERO_SHOT_MEAN] = float(np.mean(list(mean.values())))
        if measure == "accuracy":
            places = {data.source + BOTH: places[data.source + BOTH]}
        for place, value in places.items():
            # exp of the mean logarithm: a mean of probabilities, comparable with an accuracy.
            value = float(np.exp(value)) if measure == "likelihood" else value
            metrics[f"dev/{measure}/{place}"] = value
    return metrics


def objectives(source: str) -> list[str]:
    """Return the dev metrics that can rank trials, strictly zero-shot ones first.

    Args:
        source: Code of the source language.
    """
    places = (source, source + VIRTUAL, source + BOTH, ZERO_SHOT_MEAN)
    return [f"dev/{measure}/{place}" for place in places for measure in MEASURES]
