"""Expected calibration error on hand-worked numbers and against scikit-learn's bins."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from xlt_ray.evaluation.calibration import BINS, calibration_error


def test_on_hand_worked_numbers() -> None:
    # Three texts in one bin with confidence 0.9, two right; one text with 0.6, wrong.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    labels = np.array([0, 0, 0, 1])
    expected = (3 * abs(2 / 3 - 0.9) + 1 * abs(0 - 0.6)) / 4
    assert calibration_error(probabilities, labels) == pytest.approx(expected)


def test_certain_and_right_is_calibrated_certain_and_wrong_is_not() -> None:
    certain = np.array([[1.0, 0.0]] * 3)
    assert calibration_error(certain, np.zeros(3, int)) == 0
    assert calibration_error(certain, np.ones(3, int)) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bins_are_scikit_learns(dtype: type) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(4, 0.6), 500).astype(dtype)
    labels = rng.integers(0, 4, 500)
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    accuracy, mean = calibration_curve(right, confidence, n_bins=BINS, strategy="uniform")
    counts = np.histogram(confidence, np.linspace(0, 1, BINS + 1))[0]
    expected = (counts[counts > 0] * np.abs(accuracy - mean)).sum() / 500
    assert calibration_error(probabilities, labels) == pytest.approx(expected)
