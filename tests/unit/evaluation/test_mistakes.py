"""Confusion counts, scores and mistakes against hand-worked values and scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from tests.support.scored_texts import EXAMPLES, HOSTILE, PREDICTIONS
from xlt_ray.data.labelled import Examples
from xlt_ray.evaluation.mistakes import confusion_counts, scores, worst_mistakes
from xlt_ray.evaluation.saved_predictions import Predictions


def test_accuracy_and_its_interval_on_hand_worked_numbers() -> None:
    found = scores(confusion_counts(PREDICTIONS, 3), PREDICTIONS.languages)
    assert [(each.language, each.texts, each.right) for each in found] == [
        ("en", 5, 4),
        ("de", 5, 2),
        ("ru", 3, 1),
    ]
    for each in found:
        # (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n)
        z, n, p = 1.959964, each.texts, each.right / each.texts
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        assert each.accuracy == pytest.approx(p)
        assert (each.low, each.high) == pytest.approx((middle - half, middle + half), abs=1e-6)


def test_counts_and_macro_f1_are_those_of_scikit_learn() -> None:
    counts = confusion_counts(PREDICTIONS, 3)
    found = scores(counts, PREDICTIONS.languages)
    for index in range(3):
        chosen = PREDICTIONS.language == index
        gold, predicted = PREDICTIONS.labels[chosen], PREDICTIONS.predicted[chosen]
        assert counts[index].tolist() == confusion_matrix(gold, predicted, labels=range(3)).tolist()
        expected = f1_score(gold, predicted, average="macro", zero_division=0)
        assert found[index].macro_f1 == pytest.approx(expected)


def test_more_cells_than_16_bits_number() -> None:
    ids = np.array([0, 399, 200], np.int16)
    counts = confusion_counts(Predictions(ids, ids[::-1], np.zeros(3, np.int16), ["en"]), 400)
    assert np.argwhere(counts).tolist() == [[0, 0, 200], [0, 200, 0], [0, 399, 399]]


def test_the_surest_mistakes_come_first_with_the_source_beside_them() -> None:
    found = worst_mistakes(PREDICTIONS, EXAMPLES, "en")
    assert list(found) == ["de", "ru"]
    # Wrong in German are rows 1 (0.5 sure), 2 (0.99) and 3 (0.7).
    assert [each.row for each in found["de"]] == [2, 3, 1]
    worst = found["de"][0]
    assert (worst.predicted, worst.label) == (1, 2)
    assert worst.probability == pytest.approx(0.99)
    assert worst.texts == ("de a2", HOSTILE)
    assert worst.source_texts == ("en a2", "en b2") and worst.source_predicted == 2
    # Russian has other rows: nothing may stand beside them.
    assert [each.row for each in found["ru"]] == [1, 0]
    assert all(each.source_texts is None for each in found["ru"])


def test_no_more_mistakes_than_wanted_and_equal_ones_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xlt_ray.evaluation.mistakes.MOST_MISTAKES", 2)
    even = replace(PREDICTIONS, probability=np.full(13, 0.5, np.float32))
    found = worst_mistakes(even, EXAMPLES, "en")
    assert [each.row for each in found["de"]] == [1, 2]


def test_rows_of_unlike_labels_are_no_translations() -> None:
    labels = [0, 1, 2, 1, 0]
    gold = PREDICTIONS.labels.copy()
    gold[5:10] = labels
    examples = EXAMPLES | {"de": Examples(EXAMPLES["de"].texts, labels)}
    found = worst_mistakes(replace(PREDICTIONS, labels=gold), examples, "en")
    assert found["de"] and all(each.source_texts is None for each in found["de"])


def test_other_texts_than_the_scored_ones_are_refused() -> None:
    changed = EXAMPLES | {"de": EXAMPLES["de"].first(4)}
    with pytest.raises(ValueError, match="the test texts in de are not those that were scored"):
        worst_mistakes(PREDICTIONS, changed, "en")
