"""Accuracy per language and its zero-shot mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xlt_ray.names import VIRTUAL, ZERO_SHOT_ACCURACY

if TYPE_CHECKING:
    from xlt_ray.data.evaluation_set import EvaluationSet


def accuracy_metrics(split: str, predictions: np.ndarray, data: EvaluationSet) -> dict[str, float]:
    """Return the accuracy of every language, and their means.

    Args:
        split: `dev` or `test`; the metrics' prefix.
        predictions: Class ids (texts,).
        data: The texts' gold classes and languages.

    Returns:
        `{split}/accuracy/{language}` in [0, 1]; `.../zero_shot_mean`, the mean over the languages
        other than the source; `.../mean` over all; and `{split}/transfer_gap`, the source's
        accuracy minus the zero-shot mean. Virtual views count in none of the means, which are
        missing if there is no other language.
    """
    correct = predictions == data.labels
    by_language = {
        code: float(correct[data.language == index].mean())
        for index, code in enumerate(data.languages)
    }
    real = {code: value for code, value in by_language.items() if not code.endswith(VIRTUAL)}
    targets = [value for code, value in real.items() if code != data.source]
    metrics = {f"{split}/accuracy/{code}": value for code, value in by_language.items()}
    if targets:
        metrics[f"{split}/accuracy/mean"] = float(np.mean(list(real.values())))
        metrics[f"{split}/{ZERO_SHOT_ACCURACY}"] = float(np.mean(targets))
        metrics[f"{split}/transfer_gap"] = by_language[data.source] - float(np.mean(targets))
    return metrics
