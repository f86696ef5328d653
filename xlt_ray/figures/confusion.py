"""Figure of confusion matrices, one per language; the trial's page draws it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from xlt_ray.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CLASSES = 12
"""Maximum number of classes with values in the cells."""
_MOST_LETTERS = 14
"""Maximum number of letters of a class's name."""
_WIDTH = 14.0
"""Approximate maximum width of the figure, in inches."""


def confusion(
    counts: np.ndarray, languages: Sequence[str], source: str, labels: Sequence[str]
) -> Figure:
    """Draw a confusion matrix for each language.

    Args:
        counts: Number of texts by gold class and answer (languages, classes, classes).
        languages: Codes of the languages.
        source: Code of the source language.
        labels: Names of the classes.

    Returns:
        Heat maps of the share of each answer in a gold class, with the accuracy of each language.
        Up to 12 classes, the cells have the share in percent; a class without texts has zeros.

    Raises:
        ValueError: If the counts are of another shape.
    """
    classes = len(labels)
    if counts.shape != (len(languages), classes, classes) or not counts.size:
        raise ValueError(f"counts {counts.shape} for {len(languages)} languages, {classes} classes")
    says = classes <= _MOST_CLASSES
    cell = max(1.3 / classes, 0.38) if says else 4.5 / classes  # inches
    gap = max(1, round(0.4 / cell))
    size = classes + gap
    rows = ceil(len(languages) / max(1, int(_WIDTH / (size * cell))))
    columns = ceil(len(languages) / rows)
    names = [name if len(name) <= _MOST_LETTERS else f"{name[:12]}…" for name in labels]
    room = 0.085 * max(map(len, names))  # inches, by an average letter's width
    # Between two dollar signs, Matplotlib would read a formula.
    names = [name.replace("$", r"\$") for name in names]

    # One panel with gaps: a panel for each language would take seconds to lay out.
    percent = np.full((rows * size, columns * size - gap), np.nan)
    lefts, tops = np.arange(columns) * size, np.arange(rows) * size + gap
    figure, axes = style.new_figure(
        max(percent.shape[1] * cell + room + 1.6, 3.8), len(percent) * cell + room + 0.5
    )
    for index, (code, matrix) in enumerate(zip(languages, counts, strict=True)):
        top, left = tops[index // columns], lefts[index % columns]
        totals = matrix.sum(1, keepdims=True)
        percent[top : top + classes, left : left + classes] = 100 * matrix / np.maximum(totals, 1)
        accuracy = 100 * matrix.trace() / max(1, matrix.sum())
        title = f"{code}{' (source)' if code == source else ''} {accuracy:.1f} %"
        axes.text(left + (classes - 1) / 2, top - 0.5 - 0.05 / cell, title, size=9, ha="center")
    image = axes.imshow(percent, cmap="viridis", vmin=0, vmax=100)
    if says:
        style.say_values(axes, image, digits=0)
    for text in axes.texts:
        text.set_in_layout(False)  # It lies within the panel, and measuring it is slow.
    each = np.arange(classes)
    axes.set_xticks(np.add.outer(lefts, each).ravel(), names * columns, size=8, rotation=90)
    axes.set_yticks(np.add.outer(tops, each).ravel(), names * rows, size=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("answer")
    axes.set_ylabel("gold class")
    bar = axes.inset_axes(
        (1 + 0.2 / (percent.shape[1] * cell), 0, 0.15 / (percent.shape[1] * cell), 1)
    )
    figure.colorbar(image, cax=bar, label="of the gold class's texts (%)")
    return figure
