"""Predictions for a few pairs of texts. Tests of mistakes and of the trial page use them."""

from __future__ import annotations

import numpy as np

from xlt_ray.data.labelled import Examples
from xlt_ray.evaluation.saved_predictions import Predictions

HOSTILE = '<script>alert("$title")</script> & `x`'
GOLD = [0, 1, 2, 0, 1]
PREDICTIONS = Predictions(
    predicted=np.array([0, 1, 2, 0, 0, 0, 2, 1, 1, 1, 0, 0, 0], np.int16),
    labels=np.array([*GOLD, *GOLD, 2, 1, 0], np.int16),
    language=np.array([0] * 5 + [1] * 5 + [2] * 3, np.int16),
    languages=("en", "de", "ru"),
    probability=np.array(
        [0.9, 0.9, 0.9, 0.9, 0.6, 0.9, 0.5, 0.99, 0.7, 0.99, 0.4, 0.8, 0.9], np.float32
    ),
)
EXAMPLES = {
    "en": Examples(([f"en a{i}" for i in range(5)], [f"en b{i}" for i in range(5)]), GOLD),
    "de": Examples(
        ([f"de a{i}" for i in range(5)], ["de b0", "de b1", HOSTILE, "de b3", "de b4"]), GOLD
    ),
    "ru": Examples((["ru a0", "ru a1", "ru a2"], ["ru b0", "ru b1", "ru b2"]), [2, 1, 0]),
}
