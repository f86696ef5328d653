"""Figures of docs/results.md; `scripts.results` draws them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from xlt_ray.evaluation.intervals import Difference, points
from xlt_ray.figures.style import COLOURS, add_legend, new_figure


def differences(compared: Mapping[str, Difference], reference: str) -> Figure:
    """Draw the differences of methods to a reference, with their intervals.

    Args:
        compared: The difference of each method, in the order to show them in, the first on top.
        reference: What they are compared with, in words.

    Returns:
        A row for each method: its mean and its 95 % bootstrap interval, in points; dark where both
        intervals exclude zero.

    Raises:
        ValueError: If there is no method.
    """
    if not compared:
        raise ValueError("no method to draw")
    figure, axes = new_figure(7.5, 0.38 * len(compared) + 0.9)
    for place, difference in enumerate(compared.values()):
        colour = COLOURS[2] if difference.verdict != "no clear difference" else COLOURS[7]
        axes.hlines(place, 100 * difference.low, 100 * difference.high, color=colour, linewidth=2)
        axes.plot(100 * difference.mean, place, marker="o", color=colour)
        axes.annotate(
            points(difference.mean),
            (100 * difference.mean, place),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(compared)), list(compared))
    axes.set_ylim(len(compared) - 0.5, -0.7)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.85", linewidth=0.6)
    axes.set_xlabel(f"zero-shot mean less that of {reference} (points)", loc="right")
    return figure


def mean_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], label: str) -> Figure:
    """Draw the mean of a measure over seeds at each evaluation, and its range.

    Args:
        curves: Of each method: steps (evaluations,) and values in [0, 1] (seeds, evaluations).
        label: Name of the measure.

    Returns:
        A line for each method, with the range over seeds as a band.

    Raises:
        ValueError: If there is no method.
    """
    if not curves:
        raise ValueError("no method to draw")
    figure, axes = new_figure(7.5, 4.0)
    lines = []
    for index, (steps, values) in enumerate(curves.values()):
        colour = COLOURS[index % len(COLOURS)]
        [line] = axes.plot(steps, 100 * values.mean(0), color=colour, marker=".", linewidth=1.5)
        axes.fill_between(steps, 100 * values.min(0), 100 * values.max(0), color=colour, alpha=0.12)
        lines.append(line)
    axes.grid(axis="y", color="0.85", linewidth=0.6)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(label)
    add_legend(figure, lines, list(curves))
    return figure
