"""Macro-F1 on hand-worked numbers and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from xlt_ray.evaluation.macro_f1 import macro_f1


def test_on_hand_worked_numbers() -> None:
    # Class 0: 2 right, 1 more predicted: 4 / 5. Class 1: 1 right of 2: 2 / 3. Class 2: not met.
    assert macro_f1(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])) == pytest.approx(
        (4 / 5 + 2 / 3) / 2
    )
    # A model that only knows the frequent class: 90 % right, and half of the F1 is gone.
    labels = np.array([0] * 9 + [1])
    assert macro_f1(np.zeros(10, int), labels) == pytest.approx((18 / 19) / 2)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40))
def test_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    predictions, labels = np.array(pairs).T
    expected = f1_score(labels, predictions, average="macro", zero_division=0)
    assert macro_f1(predictions, labels) == pytest.approx(expected, abs=1e-12)
