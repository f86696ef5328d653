"""Scores of class probabilities per place of a split: accuracy, likelihood, Brier score, macro-F1.

The trainer computes them at every evaluation; a search ranks its trials by one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xlt_ray.evaluation.accuracy import accuracy_metrics
from xlt_ray.evaluation.calibration import calibration_error
from xlt_ray.evaluation.macro_f1 import macro_f1
from xlt_ray.names import BOTH, VIRTUAL, ZERO_SHOT_MEAN

if TYPE_CHECKING:
    from xlt_ray.data.evaluation_set import EvaluationSet

_MEANS = ("accuracy", "likelihood", "calibrated", "brier")
"""The measures that are means over the texts."""

MEASURES = (*_MEANS, "macro_f1")
"""The measures of :func:`dev_scores` that need labels; each is in [0, 1], and larger is better."""

ESTIMATED_ACCURACY = f"dev/estimated_accuracy/{ZERO_SHOT_MEAN}"
"""The objective that reads target-language texts, but no labels of them."""

_LEAST_PROBABILITY = 1e-6
"""Probabilities below it count as it, so that one text cannot decide a mean."""

_MOST_ASSIGNED = 500
"""Texts of a language for :func:`estimated_accuracy`; the time grows with the cube of it."""

_TEMPERATURES = (0.02, 50.0)
"""Bounds of :func:`best_temperature`."""


def item_scores(measure: str, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return a score of each text that is to be averaged; larger is better.

    Args:
        measure: `accuracy`, `likelihood`, `calibrated` or `brier`; `calibrated` is `likelihood` of
            the probabilities that :func:`tempered` returns.
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
    if measure in ("likelihood", "calibrated"):
        return np.log(np.maximum(gold, _LEAST_PROBABILITY))
    if measure == "brier":
        # sum (p - y)^2 = sum p^2 - 2 p_gold + 1
        squares = np.square(probabilities.astype(np.float64)).sum(1)
        return 1 - (squares - 2 * gold + 1) / 2
    raise ValueError(f"'{measure}' is not one of {', '.join(_MEANS)}")


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities at another temperature: softmax(log p / T).

    Args:
        probabilities: Of every class, in [0, 1] (texts, classes).
        temperature: T > 0; below 1 they become more confident.
    """
    logits = _log(probabilities) / temperature
    powers = np.exp(logits - logits.max(1, keepdims=True))
    scaled: np.ndarray = powers / powers.sum(1, keepdims=True)
    return scaled


def _log(probabilities: np.ndarray) -> np.ndarray:
    """Return the natural logarithms, finite where a probability is rounded to 0."""
    return np.log(np.maximum(probabilities.astype(np.float64), 1e-30))


def best_temperature(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Return the temperature with the highest likelihood (Guo et al., ICML 2017).

    The gold class counts as 1 - 1 / (n + 2) of n texts, the others share the rest, as Platt (1999)
    proposes: a model that makes no mistake in n texts may make one in the next, so it is not given
    unbounded confidence.

    Args:
        probabilities: Of every class, in [0, 1], of two or more classes (texts, classes).
        labels: Gold class ids (texts,).
        weights: Of the texts, >= 0 (texts,); None: equal.

    Returns:
        T in [0.02, 50].
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    texts, classes = probabilities.shape
    other = 1 / (texts + 2) / (classes - 1)
    share = np.full((texts, classes), other)
    share[np.arange(texts), labels] = 1 - other * (classes - 1)
    logits = _log(probabilities)

    def loss(logarithm: float) -> float:
        # No floor on the probabilities: it would add a plateau, on which the search for the
        # minimum can end.
        items = (share * log_softmax(logits / np.exp(logarithm), axis=1)).sum(1)
        return -float(np.average(items, weights=weights))

    bounds = np.log(_TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def dev_scores(probabilities: np.ndarray, data: EvaluationSet) -> dict[str, float]:
    """Return the dev metrics: all that a search can rank its trials by, and all accuracies.

    Args:
        probabilities: Of every class, in [0, 1] (texts, classes).
        data: The dev texts' gold classes and languages, with virtual views of the source's texts.

    Returns:
        The accuracies of :func:`accuracy_metrics`, and for each place: `dev/accuracy/<place>`,
        `dev/likelihood/<place>`, the geometric mean of the gold classes' probabilities,
        `dev/calibrated/<place>`, the same at the temperature that fits the source's texts and
        views best, so that a model's confidence does not count, `dev/brier/<place>`, 1 - B / 2
        with the mean Brier score B, and `dev/macro_f1/<place>`; all in [0, 1]. A place is the
        source language, its virtual views, both (`<source>_and_virtual`, the mean of the two
        places, in which each weighs the same), and `zero_shot_mean`, the mean over the other
        languages if there are any. With other languages also
        `dev/estimated_accuracy/zero_shot_mean` of :func:`estimated_accuracy`.
    """
    metrics = accuracy_metrics("dev", probabilities.argmax(1), data)
    fitted = calibrated(probabilities, data)
    for measure in MEASURES:
        given = fitted if measure == "calibrated" else probabilities
        mean = _by_language(measure, given, data)
        source, virtual = mean.pop(data.source), mean.pop(data.source + VIRTUAL)
        places = {
            data.source: source,
            data.source + VIRTUAL: virtual,
            data.source + BOTH: (source + virtual) / 2,
        }
        if mean:
            places[ZERO_SHOT_MEAN] = float(np.mean(list(mean.values())))
        for place, value in places.items():
            # exp of the mean logarithm: a mean of probabilities, comparable with an accuracy.
            value = float(np.exp(value)) if measure in ("likelihood", "calibrated") else value
            metrics[f"dev/{measure}/{place}"] = value
    if len(data.languages) > 2:
        metrics[ESTIMATED_ACCURACY] = estimated_accuracy(fitted, data)
    return metrics


def estimated_accuracy(probabilities: np.ndarray, data: EvaluationSet) -> float:
    """Estimate the accuracy in the target languages without their labels.

    Confidence optimal transport (Lu et al., 2023, arXiv 2302.05018): each language's texts are
    assigned to the classes so that every class gets the share that it has among the source's
    labels and the sum of the assigned classes' probabilities is largest. A language is estimated
    low if the model is unsure of its texts, or predicts some classes too often.

    Args:
        probabilities: Of every class, as :func:`calibrated` returns them (texts, classes).
        data: Dev texts of the source and at least one other language. Only the labels of the source
            are read.

    Returns:
        The mean over the other languages of the assigned classes' mean probability, in [0, 1].
    """
    labels = data.labels[data.language == data.languages.index(data.source)]
    shares = np.bincount(labels, minlength=probabilities.shape[1]) / len(labels)
    found = [
        _assigned_probability(probabilities[data.language == index], shares)
        for index, code in enumerate(data.languages)
        if code not in (data.source, data.source + VIRTUAL)
    ]
    return float(np.mean(found))


def _assigned_probability(probabilities: np.ndarray, shares: np.ndarray) -> float:
    """Return the mean probability of the assigned classes in the best assignment.

    Args:
        probabilities: Of every class, in [0, 1] (texts, classes).
        shares: Of the classes among the assigned ones, with the sum 1 (classes,).
    """
    from scipy.optimize import linear_sum_assignment

    if len(probabilities) > _MOST_ASSIGNED:
        places = np.linspace(0, len(probabilities) - 1, _MOST_ASSIGNED).round().astype(int)
        probabilities = probabilities[places]
    exact = shares * len(probabilities)
    counts = np.floor(exact).astype(int)
    # Whole texts: the largest remainders are rounded up.
    up = np.argsort(counts - exact, kind="stable")[: len(probabilities) - counts.sum()]
    counts[up] += 1
    classes = np.repeat(np.arange(len(shares)), counts)
    texts, chosen = linear_sum_assignment(probabilities[:, classes], maximize=True)
    return float(probabilities[texts, classes[chosen]].mean())


def final_scores(probabilities: np.ndarray, data: EvaluationSet) -> dict[str, float]:
    """Return the test metrics.

    Args:
        probabilities: Of every class, in [0, 1] (texts, classes).
        data: The test texts' gold classes and languages.

    Returns:
        The accuracies of :func:`accuracy_metrics`, `test/macro_f1/<language>` and
        `test/calibration_error/<language>` in [0, 1], and the `.../zero_shot_mean` of the latter
        two over the languages other than the source, if there are any.
    """
    metrics = accuracy_metrics("test", probabilities.argmax(1), data)
    for measure in ("macro_f1", "calibration_error"):
        found = _by_language(measure, probabilities, data)
        metrics |= {f"test/{measure}/{code}": value for code, value in found.items()}
        targets = [value for code, value in found.items() if code != data.source]
        if targets:
            metrics[f"test/{measure}/{ZERO_SHOT_MEAN}"] = float(np.mean(targets))
    return metrics


def _by_language(measure: str, probabilities: np.ndarray, data: EvaluationSet) -> dict[str, float]:
    """Return a measure of every language's texts; of likelihoods the mean logarithm."""
    items = item_scores(measure, probabilities, data.labels) if measure in _MEANS else None
    found = {}
    for index, code in enumerate(data.languages):
        own = data.language == index
        if items is not None:
            found[code] = float(items[own].mean())
        elif measure == "macro_f1":
            found[code] = macro_f1(probabilities[own].argmax(1), data.labels[own])
        else:
            found[code] = calibration_error(probabilities[own], data.labels[own])
    return found


def calibrated(probabilities: np.ndarray, data: EvaluationSet) -> np.ndarray:
    """Return the probabilities at the temperature that fits the source language best.

    Its texts weigh as much as their views.

    Args:
        probabilities: Of every class, in [0, 1] (texts, classes).
        data: Dev texts with virtual views of the source's. Only labels of the source are read.
    """
    weights = np.zeros(len(data.labels))
    for code in (data.source, data.source + VIRTUAL):
        texts = data.language == data.languages.index(code)
        weights[texts] = 1 / texts.sum()
    own = weights > 0
    found = best_temperature(probabilities[own], data.labels[own], weights[own])
    return tempered(probabilities, found)


def objectives(source: str, target_labels: bool = True) -> list[str]:
    """Return the dev metrics that can rank trials, those that read target languages last.

    Args:
        source: Code of the source language.
        target_labels: Whether to include those that read labels of the target languages.
    """
    places = (source, source + VIRTUAL, source + BOTH)
    unlabelled = [f"dev/{measure}/{place}" for place in places for measure in MEASURES]
    unlabelled.append(ESTIMATED_ACCURACY)
    labelled = [f"dev/{measure}/{ZERO_SHOT_MEAN}" for measure in MEASURES]
    return unlabelled + labelled if target_labels else unlabelled


def target_data(objective: str) -> str:
    """Return what an objective reads of the target languages, in words; empty: nothing."""
    if objective == ESTIMATED_ACCURACY:
        return "target-language dev texts, but not their labels"
    return "target-language dev labels" if objective.endswith(f"/{ZERO_SHOT_MEAN}") else ""
