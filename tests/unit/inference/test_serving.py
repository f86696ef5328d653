"""The classifier over tables that MLflow serves; `test_registry.py` serves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from xlt_ray import serving
from xlt_ray.inference.classifier import Classifier


def test_tables_are_answered_in_their_own_order(pair: Path) -> None:
    table = pd.DataFrame(
        {
            "id": [1, 2, 3],
            "hypothesis": ["He rests.", None, "A book."],
            "premise": ["The man sleeps.", "x", float("nan")],
        },
        index=[7, 3, 5],
    )
    found = serving._load_pyfunc(str(pair)).predict(table)
    texts = [("The man sleeps.", "He rests."), ("x", ""), ("", "A book.")]
    labels, probabilities = Classifier.load(pair).predict(texts)
    assert list(found.index) == [7, 3, 5] and list(found["predicted"]) == labels
    np.testing.assert_allclose(found.iloc[:, 1:].to_numpy(), probabilities)
