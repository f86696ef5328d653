"""The columns of a classifier's answers, in files and in MLflow."""

from __future__ import annotations

from collections.abc import Sequence

PREDICTED = "predicted"
"""Name of the column with the most probable class."""


def answer_columns(labels: Sequence[str]) -> list[str]:
    """Return the names of the output columns: the most probable class, each class's probability."""
    return [PREDICTED, *(f"probability/{label}" for label in labels)]
