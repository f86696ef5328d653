"""How far a model's confidence is from its accuracy."""

from __future__ import annotations

import numpy as np

BINS = 15
"""Bins of equal width over [0, 1], as in Guo et al."""


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error (Guo et al., ICML 2017).

    The texts are grouped by the confidence of their prediction into bins (0, 1/15], (1/15, 2/15]
    and so on: sum over the bins of |texts of the bin| / |texts| times the difference of the
    bin's accuracy and mean confidence.

    Args:
        probabilities: Of every class, in [0, 1] (texts, classes).
        labels: Gold class ids (texts,).

    Returns:
        In [0, 1]; 0 is calibrated.
    """
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))
