"""Confusion counts, per-language scores and the worst mistakes of a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from xlt_ray.data.labelled import Examples
from xlt_ray.evaluation.intervals import wilson_interval
from xlt_ray.evaluation.macro_f1 import mean_f1
from xlt_ray.evaluation.parallel import is_parallel
from xlt_ray.evaluation.saved_predictions import Predictions

MOST_MISTAKES = 10
"""Mistakes of a language on the page."""


@dataclass(frozen=True)
class LanguageScore:
    """Scores of one language."""

    language: str
    """Its code."""
    texts: int
    """Number of texts, >= 1."""
    right: int
    """Number of correct predictions."""
    low: float
    """Lower end of the accuracy's Wilson 95 % interval, in [0, 1]."""
    high: float
    """Its upper end."""
    macro_f1: float
    """Mean F1 over the classes that occur, as gold or as predicted, in [0, 1]."""

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.right / self.texts


@dataclass(frozen=True)
class Mistake:
    """A text that was classified wrongly."""

    row: int
    """Position of the text in its language's test split, from 0."""
    predicted: int
    """Class id."""
    label: int
    """Gold class id."""
    probability: float | None
    """Of the predicted class, in [0, 1]; None if it was not saved."""
    texts: tuple[str, ...]
    """The text, or the two of a pair."""
    source_texts: tuple[str, ...] | None
    """The same in the source language; None if the test sets are not parallel."""
    source_predicted: int | None
    """The trial's prediction for the source text."""


def confusion_counts(predictions: Predictions, classes: int) -> np.ndarray:
    """Count how often each gold class was predicted as each class.

    Args:
        predictions: Of one split.
        classes: Number of classes.

    Returns:
        Texts (languages, classes, classes); a row for each gold class, a column for each answer.
    """
    from sklearn.metrics import confusion_matrix

    counts = np.zeros((len(predictions.languages), classes, classes), dtype=np.int64)
    for index in np.unique(predictions.language):
        chosen = predictions.language == index
        counts[index] = confusion_matrix(
            predictions.labels[chosen], predictions.predicted[chosen], labels=range(classes)
        )
    return counts


def scores(counts: np.ndarray, languages: Sequence[str]) -> list[LanguageScore]:
    """Score each language.

    Args:
        counts: What :func:`confusion_counts` returned (languages, classes, classes).
        languages: Codes of the languages.

    Returns:
        A score for each language that has a text, in their order.
    """
    found = []
    for code, matrix in zip(languages, counts, strict=True):
        texts, right = int(matrix.sum()), int(matrix.trace())
        if not texts:
            continue
        low, high = wilson_interval(right, texts)
        found.append(
            LanguageScore(
                code,
                texts,
                right,
                low,
                high,
                mean_f1(matrix.diagonal(), matrix.sum(0) + matrix.sum(1)),
            )
        )
    return found


def worst_mistakes(
    predictions: Predictions, examples: Mapping[str, Examples], source: str
) -> dict[str, list[Mistake]]:
    """Return the misclassified texts of each target language, the most confident first.

    Args:
        predictions: Of the test set.
        examples: The test set by language.
        source: Code of the source language.

    Returns:
        At most :data:`MOST_MISTAKES` by target language, the surest first and, of equally sure
        ones or where probabilities were not kept, in the order of the texts. The source's texts
        stand beside those of a language that has the same rows with the same gold labels.

    Raises:
        ValueError: If the predictions are not those of the examples.
    """
    items = {
        code: np.flatnonzero(predictions.language == index)
        for index, code in enumerate(predictions.languages)
    }
    for code, places in items.items():
        if predictions.labels[places].tolist() != examples[code].labels:
            raise ValueError(f"the test texts in {code} are not those that were scored")
    own = items[source]
    found = {}
    for code, places in items.items():
        if code == source:
            continue
        both = np.concatenate([own, places])
        parallel = is_parallel(
            np.repeat([0, 1], [len(own), len(places)]),
            np.concatenate([np.arange(len(own)), np.arange(len(places))]),
            predictions.labels[both],
            (source, code),
        )
        wrong = np.flatnonzero(predictions.predicted[places] != predictions.labels[places])
        sure = None if predictions.probability is None else predictions.probability[places]
        if sure is not None:
            wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
        found[code] = [
            Mistake(
                row,
                int(predictions.predicted[places[row]]),
                int(predictions.labels[places[row]]),
                None if sure is None else float(sure[row]),
                tuple(column[row] for column in examples[code].texts),
                tuple(column[row] for column in examples[source].texts) if parallel else None,
                int(predictions.predicted[own[row]]) if parallel else None,
            )
            for row in wrong[:MOST_MISTAKES].tolist()
        ]
    return found
