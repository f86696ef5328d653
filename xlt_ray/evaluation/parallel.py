"""Whether the evaluation data of all languages are the same examples in translation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def is_parallel(
    language: np.ndarray, row: np.ndarray, labels: np.ndarray, languages: Sequence[str]
) -> bool:
    """Return whether every language has the same rows with the same gold labels.

    Rows with different labels cannot be translations of each other. Rows with equal labels might
    still not be, which only a reader of both languages can decide.

    Args:
        language: Position in `languages` of each text's language (texts,).
        row: Position of each text in its language's split (texts,).
        labels: Gold class ids (texts,).
        languages: Codes of the languages.
    """
    rows = [np.sort(row[language == index]) for index in range(len(languages))]
    if any(not np.array_equal(rows[0], other) for other in rows):
        return False
    by_language = labels[np.lexsort((row, language))].reshape(len(languages), -1)
    return bool((by_language == by_language[0]).all())
