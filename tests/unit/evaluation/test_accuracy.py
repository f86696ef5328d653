"""Accuracy per language and its means."""

from __future__ import annotations

import numpy as np
import pytest

from xlt_ray.data.evaluation_set import EvaluationSet
from xlt_ray.evaluation.accuracy import accuracy_metrics

PAD = 0


def gold(labels: np.ndarray, language: np.ndarray, languages: tuple[str, ...]) -> EvaluationSet:
    """An evaluation set of which only gold classes and languages matter."""
    return EvaluationSet({}, labels, language, np.arange(len(labels)), languages, "en", PAD)


def test_metrics_on_hand_worked_numbers() -> None:
    data = gold(
        np.array([0, 1, 2, 1, 0, 0, 1, 2, 2, 2]),
        np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2]),
        ("en", "de", "zh"),
    )
    metrics = accuracy_metrics("dev", np.array([0, 1, 2, 0, 0, 1, 1, 1, 2, 2]), data)
    # en 3 of 4, de 1 of 2, zh 3 of 4.
    assert metrics == pytest.approx(
        {
            "dev/accuracy/en": 0.75,
            "dev/accuracy/de": 0.5,
            "dev/accuracy/zh": 0.75,
            "dev/accuracy/mean": 2 / 3,
            "dev/accuracy/zero_shot_mean": 0.625,
            "dev/transfer_gap": 0.125,
        }
    )


def test_source_need_not_be_the_first_language_and_a_gap_can_be_negative() -> None:
    data = gold(np.array([1, 1, 1, 1]), np.array([0, 0, 1, 1]), ("de", "en"))
    metrics = accuracy_metrics("test", np.array([1, 1, 1, 0]), data)
    assert metrics["test/accuracy/zero_shot_mean"] == 1.0
    assert metrics["test/transfer_gap"] == -0.5


def test_virtual_views_have_an_accuracy_and_count_in_no_mean() -> None:
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 3, (2, 40))
    language = np.arange(40) % 4
    predictions[language == 3] = (labels[language == 3] + 1) % 3  # every view is wrong
    real = language < 3

    def metrics(chosen: np.ndarray, languages: tuple[str, ...]) -> dict[str, float]:
        data = gold(labels[chosen], language[chosen], languages)
        return accuracy_metrics("dev", predictions[chosen], data)

    expected = metrics(real, ("en", "de", "zh"))
    assert 0 < expected["dev/accuracy/zero_shot_mean"] < 1
    found = metrics(real | ~real, ("en", "de", "zh", "en_virtual"))
    assert found.pop("dev/accuracy/en_virtual") == 0
    assert found == expected
