"""Accuracy per language and its zero-shot mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xlt_ray.names import VIRTUAL


def accuracy_metrics(
    split: str,
    predictions: np.ndarray,
    labels: np.ndarray,
    language: np.ndarray,
    languages: Sequence[str],
    source: str,
) -> dict[str, float]:
    """Score predictions a language.

    Args:
        split: `dev` or `test`; the metrics' prefix.
        predictions: Class ids (texts,).
        labels: Gold class ids (texts,).
        language: Position in `languages` of each text's language (texts,).
        languages: Codes of the languages.
        source: Code of the source language, the only one with training labels.

    Returns:
        `{split}/accuracy/{language}` in [0, 1]; `.../zero_shot_mean`, the mean over the languages
        other than the source; `.../mean` over all; and `{split}/transfer_gap`, the source's
        accuracy minus the zero-shot mean. Virtual views count in none of the means.
    """
    correct = predictions == labels
    by_language = {
        code: float(correct[language == index].mean()) for index, code in enumerate(languages)
    }
    real = {code: value for code, value in by_language.items() if not code.endswith(VIRTUAL)}
    targets = [value for code, value in real.items() if code != source]
    metrics = {f"{split}/accuracy/{code}": value for code, value in by_language.items()}
    metrics[f"{split}/accuracy/mean"] = float(np.mean(list(real.values())))
    metrics[f"{split}/accuracy/zero_shot_mean"] = float(np.mean(targets))
    metrics[f"{split}/transfer_gap"] = by_language[source] - float(np.mean(targets))
    return metrics
