"""Macro-F1, which counts a rare class as much as a frequent one."""

from __future__ import annotations

import numpy as np


def macro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over the classes of F1 = 2 TP / (2 TP + FP + FN), in [0, 1].

    The classes are those that occur in the labels or in the predictions, as in scikit-learn.

    Args:
        predictions: Class ids (texts,).
        labels: Gold class ids (texts,).
    """
    classes = int(max(predictions.max(), labels.max())) + 1
    right = np.bincount(labels[predictions == labels], minlength=classes)
    # TP + FP texts are predicted as a class, TP + FN have it.
    occurring = np.bincount(predictions, minlength=classes) + np.bincount(labels, minlength=classes)
    return mean_f1(right, occurring)


def mean_f1(right: np.ndarray, occurring: np.ndarray) -> float:
    """Return macro-F1 from counts of each class.

    Args:
        right: Texts of the class that are predicted as it (classes,).
        occurring: Texts of the class plus texts predicted as it (classes,), some above 0.
    """
    used = occurring > 0
    return float((2 * right[used] / occurring[used]).mean())
