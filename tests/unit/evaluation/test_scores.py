"""Likelihood and Brier score on hand-worked numbers, and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from xlt_ray.data.evaluation_set import EvaluationSet
from xlt_ray.evaluation.scores import MEASURES, dev_scores, item_scores, objectives


def dev_set(labels: np.ndarray, language: np.ndarray, languages: tuple[str, ...]) -> EvaluationSet:
    return EvaluationSet({}, labels, language, np.arange(len(labels)), languages, "en", 0)


def test_items_on_hand_worked_numbers() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], dtype=np.float32)
    labels = np.array([0, 1])
    assert item_scores("accuracy", probabilities, labels).tolist() == [1, 0]
    logs = [math.log(0.7), math.log(0.3)]
    assert item_scores("likelihood", probabilities, labels) == pytest.approx(logs)
    # B = 0.3^2 + 0.2^2 + 0.1^2 = 0.14; 0.5^2 + 0.7^2 + 0.2^2 = 0.78
    assert item_scores("brier", probabilities, labels) == pytest.approx([0.93, 0.61])
    with pytest.raises(ValueError, match="'loss' is not one of accuracy, likelihood, brier"):
        item_scores("loss", probabilities, labels)


def test_places_on_hand_worked_numbers() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.6, 0.4], [0.5, 0.5]])
    data = dev_set(np.zeros(5, int), np.array([0, 0, 1, 2, 2]), ("en", "de", "en_virtual"))
    metrics = dev_scores(probabilities, data)
    english, virtual = math.log(0.9 * 0.2) / 2, math.log(0.6 * 0.5) / 2
    assert metrics == pytest.approx(
        {
            "dev/likelihood/en": math.sqrt(0.18),
            "dev/likelihood/en_virtual": math.sqrt(0.3),
            "dev/likelihood/en_and_virtual": math.exp((english + virtual) / 2),
            "dev/likelihood/zero_shot_mean": 0.4,
            # 1 - (1 - p)^2 with two classes: en 0.99 and 0.36, views 0.84 and 0.75, de 0.64.
            "dev/brier/en": 0.675,
            "dev/brier/en_virtual": 0.795,
            "dev/brier/en_and_virtual": 0.735,
            "dev/brier/zero_shot_mean": 0.64,
            # en 1 of 2; views 2 of 2, a tie going to the first class.
            "dev/accuracy/en_and_virtual": 0.75,
        }
    )


def test_measures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    probabilities = rng.dirichlet(np.full(4, 0.5), 200)
    likelihood = item_scores("likelihood", probabilities, labels).mean()
    floored = np.maximum(probabilities, 1e-6)
    given = floored / floored.sum(1, keepdims=True)
    assert likelihood == pytest.approx(-log_loss(labels, given), abs=1e-4)
    brier = item_scores("brier", probabilities, labels).mean()
    expected = brier_score_loss(labels, probabilities, labels=[0, 1, 2, 3], scale_by_half=False)
    assert 1 - brier == pytest.approx(expected / 2, abs=1e-9)


def test_a_certain_mistake_cannot_decide_a_mean() -> None:
    probabilities = np.array([[0.0, 1.0]] + [[1.0, 0.0]] * 99)
    items = item_scores("likelihood", probabilities, np.zeros(100, int))
    assert np.exp(items.mean()) == pytest.approx(1e-6**0.01)


def test_every_objective_is_a_metric_and_larger_when_the_gold_class_is_likelier() -> None:
    language = np.array([0, 1, 2] * 4)
    data = dev_set(np.zeros(12, int), language, ("en", "de", "en_virtual"))

    def scores(gold: float) -> dict[str, float]:
        return dev_scores(np.tile([gold, 1 - gold], (12, 1)), data)

    worse, better = scores(0.4), scores(0.9)
    for name in objectives("en"):
        if name in worse:
            assert 0 <= worse[name] < better[name] <= 1
        else:
            assert name.split("/")[1] == "accuracy"  # computed by accuracy_metrics
    assert len(objectives("en")) == 4 * len(MEASURES)
