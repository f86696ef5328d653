"""Likelihood and Brier score on hand-worked numbers, and against scikit-learn."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss, f1_score, log_loss

from xlt_ray.data.evaluation_set import EvaluationSet
from xlt_ray.evaluation.scores import (
    MEASURES,
    best_temperature,
    calibrated,
    dev_scores,
    estimated_accuracy,
    final_scores,
    item_scores,
    objectives,
    target_data,
    tempered,
)


def dev_set(labels: np.ndarray, language: np.ndarray, languages: tuple[str, ...]) -> EvaluationSet:
    return EvaluationSet({}, labels, language, np.arange(len(labels)), languages, "en", 0)


def estimate(probabilities: np.ndarray, data: EvaluationSet) -> float:
    return estimated_accuracy(calibrated(probabilities, data), data)


def test_items_on_hand_worked_numbers() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], dtype=np.float32)
    labels = np.array([0, 1])
    assert item_scores("accuracy", probabilities, labels).tolist() == [1, 0]
    logs = [math.log(0.7), math.log(0.3)]
    assert item_scores("likelihood", probabilities, labels) == pytest.approx(logs)
    # B = 0.3^2 + 0.2^2 + 0.1^2 = 0.14; 0.5^2 + 0.7^2 + 0.2^2 = 0.78
    assert item_scores("brier", probabilities, labels) == pytest.approx([0.93, 0.61])
    with pytest.raises(ValueError, match="'loss' is not one of accuracy, "):
        item_scores("loss", probabilities, labels)


def test_places_on_hand_worked_numbers() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.6, 0.4], [0.5, 0.5]])
    data = dev_set(np.zeros(5, int), np.array([0, 0, 1, 2, 2]), ("en", "de", "en_virtual"))
    metrics = dev_scores(probabilities, data)
    english, virtual = math.log(0.9 * 0.2) / 2, math.log(0.6 * 0.5) / 2
    metrics = {name: value for name, value in metrics.items() if "calibrated" not in name}
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
            # en: of class 0, F1 = 2 / 3; class 1 is predicted once and wrong, 0. de likewise, the
            # tie going to the first class; views: all right, and class 1 does not occur.
            "dev/macro_f1/en": 1 / 3,
            "dev/macro_f1/en_virtual": 1.0,
            "dev/macro_f1/en_and_virtual": 2 / 3,
            "dev/macro_f1/zero_shot_mean": 0.0,
            # en 1 of 2; de 0 of 1; views 2 of 2, a tie going to the first class.
            "dev/accuracy/en": 0.5,
            "dev/accuracy/de": 0.0,
            "dev/accuracy/en_virtual": 1.0,
            "dev/accuracy/en_and_virtual": 0.75,
            "dev/accuracy/zero_shot_mean": 0.0,
            "dev/accuracy/mean": 0.25,
            "dev/transfer_gap": 0.5,
            # Its own test.
            "dev/estimated_accuracy/zero_shot_mean": estimate(probabilities, data),
        }
    )


def test_accuracy_of_the_targets_is_estimated_from_confidence_and_shares_of_classes() -> None:
    # en: 3 of 4 right at a probability of 0.75, and so are its views: the best temperature is 1. Of
    # a language's four texts, three are to be of class 0.
    targets = [0.9, 0.8, 0.7, 0.6, 0.9, 0.2, 0.8, 0.9]
    first = np.concatenate([np.full(4_000, 0.75), targets, np.full(4_000, 0.75)])
    language = np.repeat([0, 1, 2, 3], [4_000, 4, 4, 4_000])
    labels = np.tile([0, 0, 0, 1], 2_002)
    data = dev_set(labels, language, ("en", "de", "zh", "en_virtual"))
    found = estimate(np.stack([first, 1 - first], axis=1), data)
    # de predicts class 0 throughout, so its least sure text is taken for class 1: 0.9, 0.8, 0.7 and
    # 0.4. zh: 0.9, 0.8, 0.8 and 0.9.
    assert found == pytest.approx((0.7 + 0.85) / 2, abs=1e-3)


@given(st.integers(0, 2**32 - 1))
def test_the_assignment_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.array([0, 0, 0, 1, 1, 2])
    language = np.repeat([0, 1, 2], 6)
    data = dev_set(np.tile(labels, 3), language, ("en", "de", "en_virtual"))
    probabilities = rng.dirichlet(np.ones(3), 18)
    source = language != 1
    temperature = best_temperature(probabilities[source], data.labels[source])
    target = tempered(probabilities[~source], temperature)
    best = max(target[np.arange(6), order].mean() for order in set(permutations(labels.tolist())))
    assert estimate(probabilities, data) == pytest.approx(best, abs=1e-6)


def test_of_many_texts_some_are_assigned_evenly_spread() -> None:
    first = np.concatenate([[0.75] * 8_000, np.linspace(0.5, 1, 2_000)])
    language = np.concatenate([[0] * 4_000, [2] * 4_000, [1] * 2_000])
    labels = np.concatenate([[0, 0, 0, 1] * 2_000, np.zeros(2_000, int)])
    data = dev_set(labels, language, ("en", "de", "en_virtual"))
    found = estimate(np.stack([first, 1 - first], axis=1), data)
    # The quarter of the least sure texts is of class 1: 0.5 to 0.625 sure of class 0.
    assert found == pytest.approx((0.8125 * 3 + (1 - 0.5625)) / 4, abs=1e-3)


@given(st.integers(0, 2**32 - 1))
def test_no_label_of_a_target_language_enters_the_estimate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    language = np.repeat([0, 1, 2], 20)
    labels = rng.integers(0, 3, 60)
    probabilities = rng.dirichlet(np.ones(3), 60)
    others = np.where(language == 1, rng.integers(0, 3, 60), labels)
    name = "dev/estimated_accuracy/zero_shot_mean"
    one, other = (
        dev_scores(probabilities, dev_set(given, language, ("en", "de", "en_virtual")))[name]
        for given in (labels, others)
    )
    assert one == other and 0 <= one <= 1


def test_without_other_languages_there_is_no_estimate() -> None:
    data = dev_set(np.zeros(4, int), np.array([0, 0, 1, 1]), ("en", "en_virtual"))
    assert not any("estimated" in name for name in dev_scores(np.full((4, 2), 0.5), data))


def test_the_best_temperature_is_that_of_a_naive_search() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 300)
    logits = rng.normal(size=(300, 3)) + 2 * np.eye(3)[labels]
    weights = rng.random(300)
    overconfident = softmax(4 * logits, axis=1)

    def loss(temperature: float) -> float:
        scaled = log_softmax(4 * logits / temperature, axis=1)
        gold = scaled[np.arange(300), labels]
        others = (scaled.sum(1) - gold) / 2
        return float(-(weights * (301 * gold + others)).sum())

    naive = min(np.geomspace(0.1, 40, 2_000), key=loss)
    assert best_temperature(overconfident, labels, weights) == pytest.approx(naive, rel=0.01)


@given(st.integers(2, 400), st.floats(0.55, 0.999))
def test_without_a_mistake_the_confidence_is_that_of_one_in_the_next_texts(
    texts: int, probability: float
) -> None:
    """All of n texts are right, equally sure: the best probability is (n + 1) / (n + 2)."""
    probabilities = np.tile([probability, 1 - probability], (texts, 1))
    labels = np.zeros(texts, dtype=int)
    fitted = tempered(probabilities, best_temperature(probabilities, labels))[0, 0]
    assert fitted == pytest.approx((texts + 1) / (texts + 2), abs=1e-3)


def test_a_model_without_mistakes_is_not_estimated_above_a_better_one() -> None:
    """A model that knows the source by heart is no better at the targets for it."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(8), 8)
    language = np.repeat([0, 1, 2], [64, 64, 256])
    data = dev_set(
        np.concatenate([labels, labels, np.tile(labels, 4)]), language, ("en", "de", "en_virtual")
    )

    def estimated(right_in_source: float, right_in_target: float) -> float:
        right = np.where(language == 1, right_in_target, right_in_source)
        found = np.where(rng.random(len(language)) < right, data.labels, (data.labels + 3) % 8)
        sure = np.where(found == data.labels, 3.0, 1.5)  # Less sure where it is wrong.
        return estimate(softmax(sure[:, None] * np.eye(8)[found], axis=1), data)

    assert estimated(1.0, 0.6) < estimated(0.98, 0.9)


@given(st.floats(0.2, 5))
def test_confidence_does_not_count_when_calibrated(temperature: float) -> None:
    rng = np.random.default_rng(2)
    language = np.repeat([0, 1, 2], 40)
    data = dev_set(rng.integers(0, 3, 120), language, ("en", "de", "en_virtual"))
    probabilities = softmax(rng.normal(size=(120, 3)) + 1.5 * np.eye(3)[data.labels], axis=1)
    once = dev_scores(probabilities, data)
    again = dev_scores(tempered(probabilities, temperature), data)
    for place in ("en", "en_virtual", "en_and_virtual", "zero_shot_mean"):
        name = f"dev/calibrated/{place}"
        assert again[name] == pytest.approx(once[name], abs=1e-4)
    # The fit is to both places of the source, so hardly another temperature is better for them.
    assert once["dev/calibrated/en_and_virtual"] >= once["dev/likelihood/en_and_virtual"] - 1e-3


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


def test_final_scores_are_a_language_each_and_their_zero_shot_mean() -> None:
    rng = np.random.default_rng(3)
    labels, language = rng.integers(0, 3, 90), np.arange(90) % 3
    probabilities = rng.dirichlet(np.ones(3), 90)
    data = dev_set(labels, language, ("en", "de", "zh"))
    found = final_scores(probabilities, data)
    for number, code in enumerate(("en", "de", "zh")):
        own = language == number
        expected = f1_score(labels[own], probabilities[own].argmax(1), average="macro")
        assert found[f"test/macro_f1/{code}"] == pytest.approx(expected)
    for measure in ("macro_f1", "calibration_error"):
        targets = [found[f"test/{measure}/{code}"] for code in ("de", "zh")]
        assert found[f"test/{measure}/zero_shot_mean"] == pytest.approx(np.mean(targets))
    right = probabilities.argmax(1) == labels
    assert found["test/accuracy/de"] == pytest.approx(right[language == 1].mean())
    assert len(found) == 3 * 4 + 2  # also the mean accuracy, and the gap
    alone = dev_set(labels, np.zeros(90, int), ("en",))
    assert set(final_scores(probabilities, alone)) == {
        "test/accuracy/en",
        "test/macro_f1/en",
        "test/calibration_error/en",
    }


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
        if name == "dev/estimated_accuracy/zero_shot_mean":
            # Larger where the targets' texts look surer, whatever their labels.
            continue
        assert 0 <= worse[name] < better[name] <= 1
    assert len(objectives("en")) == 4 * len(MEASURES) + 1


def test_what_an_objective_reads_of_the_target_languages_is_said() -> None:
    said = {name: target_data(name) for name in objectives("en")}
    assert said["dev/brier/zero_shot_mean"] == "target-language dev labels"
    assert "not their labels" in said["dev/estimated_accuracy/zero_shot_mean"]
    assert not any(said[name] for name in said if not name.endswith("zero_shot_mean"))
