"""Figures of results: accuracy by language and by language pair, alignment, embeddings. The report
and the assessment draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from xlt_ray.figures.style import (
    LANGUAGE_COLOURS,
    add_legend,
    draw_marks,
    new_figure,
    offsets,
    say_values,
)
from xlt_ray.names import ZERO_SHOT_MEAN

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def accuracy_by_language(
    accuracy: Mapping[str, Mapping[str, tuple[float, float, float]]],
    languages: Sequence[str],
    source: str,
) -> Figure:
    """Draw the test accuracy of methods in every language, with intervals.

    Args:
        accuracy: Of each method, in the legend's order: the mean and the low and the high end of
            its interval by language code and for :data:`ZERO_SHOT_MEAN`, all in [0, 1]. Where
            there is no interval both ends are the mean.
        languages: Language codes, in the order to show the targets in.
        source: Code of the source language; shown first, wherever it stands in `languages`.

    Returns:
        A dot plot: a column for each language and, last, one for the zero-shot mean.

    Raises:
        ValueError: If there is no method, the source is not among the languages, a method lacks
            a column, or a value is outside [0, 1].
    """
    if source not in languages:
        raise ValueError(f"the source language '{source}' is not among {', '.join(languages)}")
    targets = [code for code in languages if code != source]
    columns = [source, *targets, ZERO_SHOT_MEAN]
    table = _in_percent(accuracy, columns)
    places = np.arange(len(columns)) + 0.4
    places[0], places[-1] = 0.0, places[-1] + 0.4

    column = max(0.083 * len(table), 0.46)
    figure, axes = new_figure(max(column * (places[-1] + 1.2) + 0.8, 3.6), 4.2)
    for place in places[1:-1:2]:
        axes.axvspan(place - 0.5, place + 0.5, color="0.95", linewidth=0, zorder=0)
    marks = []
    for index, (values, offset) in enumerate(zip(table.values(), offsets(len(table)), strict=True)):
        mean, low, high = values.T
        marks.append(draw_marks(axes, index, places + offset, mean))
        # Not `errorbar`: it takes lengths, and fails where rounding makes one negative.
        axes.vlines(places + offset, low, high, color=marks[-1].get_color(), linewidth=1.3)
    axes.set_xticks(places, [f"{source}\nsource", *targets, "zero-shot\nmean"])
    axes.set_xlim(places[0] - 0.6, places[-1] + 0.6)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color="0.85", linewidth=0.6)
    axes.set_xlabel("language of the test texts")
    axes.set_ylabel("test accuracy (%)")
    add_legend(figure, marks, list(table))
    return figure


def alignment_by_language(
    values: Mapping[str, Mapping[str, float]], languages: Sequence[str]
) -> Figure:
    """Draw how well encoders align languages, measured by translation retrieval.

    Args:
        values: Of each series, such as a method or the encoder before fine-tuning: retrieval
            accuracy by language code, in [0, 1].
        languages: Language codes, in the order to show them in.

    Returns:
        A dot plot: a row for each language and, last, one for the mean over `languages`.

    Raises:
        ValueError: If there is no series or no language, a series lacks a language, or a value
            is outside [0, 1].
    """
    table = _in_percent(values, languages)
    places = np.arange(len(languages) + 1.0)
    places[-1] += 0.4

    row = max(0.083 * len(table), 0.35)
    figure, axes = new_figure(5.0, row * (places[-1] + 1.2) + 1.0)
    for place in places[:-1:2]:
        axes.axhspan(place - 0.5, place + 0.5, color="0.95", linewidth=0, zorder=0)
    marks = []
    for index, (series, offset) in enumerate(zip(table.values(), offsets(len(table)), strict=True)):
        marks.append(draw_marks(axes, index, np.append(series, series.mean()), places + offset))
    axes.set_yticks(places, [*languages, "mean"])
    axes.set_ylim(places[-1] + 0.6, places[0] - 0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.85", linewidth=0.6)
    axes.set_xlabel("translation retrieval accuracy (%)")
    axes.set_ylabel("language")
    add_legend(figure, marks, list(table))
    return figure


def language_pairs(matrix: np.ndarray, languages: Sequence[str]) -> Figure:
    """Draw the accuracy on pairs whose premise and hypothesis are in two languages.

    Args:
        matrix: Accuracy in [0, 1]; a row for each language of the premise, a column for each of
            the hypothesis (languages, languages).
        languages: Language codes, two or more.

    Returns:
        A heat map, its title with the means over all pairs, over the diagonal and off it.

    Raises:
        ValueError: If there is one language only, or the matrix is of another shape or has a
            value outside [0, 1].
    """
    size = len(languages)
    if size < 2 or matrix.shape != (size, size):
        raise ValueError(f"a matrix {matrix.shape} for {size} languages; two or more are needed")
    percent = _percent("the matrix", matrix)
    same = np.eye(size, dtype=bool)

    side = 0.5 if size <= 10 else 0.4
    figure, axes = new_figure(max(side * size + 1.8, 4.2), max(side * size + 1.3, 2.6))
    image = axes.imshow(percent, cmap="viridis")
    # Inside the panel's frame of reference, so that it is as high as the map.
    figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.04, 1)), label="accuracy (%)")
    say_values(axes, image, digits=1 if size <= 10 else 0)
    axes.set_xticks(range(size), languages)
    axes.set_yticks(range(size), languages)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("language of the hypothesis")
    axes.set_ylabel("language of the premise")
    figure.suptitle(
        f"mean over all pairs {percent.mean():.1f} %\n"
        f"same language {percent[same].mean():.1f} %, "
        f"two languages {percent[~same].mean():.1f} %",
        fontsize=10,
    )
    return figure


@dataclass(frozen=True)
class Points:
    """Sentence embeddings projected to a plane."""

    coordinates: np.ndarray
    """First and second principal component (texts, 2)."""
    language: np.ndarray
    """Position of each text's language among the languages (texts,)."""
    title: str
    """Title of the panel, such as `before fine-tuning`."""


def projection(before: Points, after: Points, languages: Sequence[str]) -> Figure:
    """Draw two projections of sentence embeddings side by side, coloured by language.

    Args:
        before: The left panel.
        after: The right panel.
        languages: Language codes, the source first; it is drawn in black above the others. From
            the 18th on, colours repeat.

    Returns:
        Two scatter plots. The two axes of a panel have one scale, so distances compare within a
        panel, but not between panels.

    Raises:
        ValueError: If coordinates or positions are of another shape, a coordinate is not finite,
            or a position is not that of one of `languages`.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.lines import Line2D

    cycle = len(LANGUAGE_COLOURS)
    targets = [LANGUAGE_COLOURS[index % cycle] for index in range(len(languages) - 1)]
    palette = np.array([to_rgb(colour) for colour in ("black", *targets)])

    figure, left = new_figure(9.5, 4.4, panels=2)
    for axes, points in zip(figure.axes, (before, after), strict=True):
        coordinates, language = points.coordinates, points.language
        if coordinates.shape != (*language.shape, 2) or language.ndim != 1:
            raise ValueError(
                f"{points.title}: coordinates {coordinates.shape} for languages {language.shape}, "
                "not (texts, 2) for (texts,)"
            )
        if not np.isfinite(coordinates).all():
            raise ValueError(f"{points.title}: a coordinate that is not finite")
        if not ((language >= 0) & (language < len(languages))).all():
            raise ValueError(
                f"{points.title}: a language that is not one of the {len(languages)} positions"
            )
        # In random order, so that no target covers another; the sort is stable: the source last.
        order = np.random.default_rng(0).permutation(len(language))
        order = order[np.argsort(language[order] == 0, kind="stable")]
        x, y = coordinates[order].T
        axes.scatter(x, y, c=palette[language[order]], s=8, alpha=0.7, linewidths=0)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_title(points.title, fontsize=11)
        axes.set_xlabel("first principal component")
        axes.set_xticks([])
        axes.set_yticks([])
    left.set_ylabel("second principal component")
    dots = [
        Line2D([], [], color=tuple(colour), marker="o", markersize=5, linestyle="none")
        for colour in palette
    ]
    columns = ceil(len(languages) / 16)
    figure.legend(dots, list(languages), loc="outside right upper", frameon=False, ncols=columns)
    return figure


def _in_percent(
    table: Mapping[str, Mapping[str, Any]], columns: Sequence[str]
) -> dict[str, np.ndarray]:
    """Check the values and return each row's values in the order of the columns."""
    if not table or not columns:
        raise ValueError("nothing to draw")
    result = {}
    for name, row in table.items():
        if missing := [column for column in columns if column not in row]:
            raise ValueError(f"{name}: no value for {', '.join(missing)}")
        result[name] = _percent(name, np.array([row[column] for column in columns], dtype=float))
    return result


def _percent(what: str, values: np.ndarray) -> np.ndarray:
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{what}: an accuracy that is not in [0, 1]")
    return 100 * values
