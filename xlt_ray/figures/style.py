"""Colours, markers, sizes and helpers that all figures share."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
DPI = 150
"""Resolution of a saved figure, in pixels per inch."""


# Okabe and Ito's colours, which colour-blind readers can distinguish, with grey for their yellow,
# which is too pale for a thin line on white. The shapes differ too, for print without colour.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808080")
MARKERS = "osD^v<>h"
# Sasha Trubetskoy's list of distinct colours, without the palest ones and the greys. Colour-blind
# readers cannot distinguish all of them, but no list of this length avoids that.
LANGUAGE_COLOURS = (
    *("#E6194B", "#3CB44B", "#4363D8", "#F58231", "#911EB4", "#42D4F4", "#F032E6", "#469990"),
    *("#9A6324", "#FFE119", "#808000", "#BFEF45", "#800000", "#DCBEFF", "#000075", "#FABED4"),
)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG at :data:`DPI`.

    Args:
        figure: The figure.
        path: The file; replaced if it exists. Its folder must exist.

    Raises:
        OSError: If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=DPI)


def say_values(axes: Axes, image: AxesImage, digits: int) -> None:
    """Write each value of a heat map into its cell, in black or white, whichever contrasts more;
    cells with NaN stay empty."""
    for (row, column), value in np.ndenumerate(np.asarray(image.get_array())):
        if np.isnan(value):
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        # Relative luminance (WCAG 2); from 0.18 on, black has the higher contrast.
        luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
        axes.text(
            column,
            row,
            f"{value:.{digits}f}",
            color="black" if luminance > 0.18 else "white",
            fontsize=9,
            ha="center",
            va="center",
        )


def new_figure(width: float, height: float, panels: int = 1) -> tuple[Figure, Axes]:
    """Return a new figure, sizes in inches, and its leftmost panel."""
    # Not pyplot, which would keep every figure and may need a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)[0, 0]


def offsets(count: int) -> np.ndarray:
    """Return the offset of each series' marks from their place on the axis; places are 1 apart."""
    return min(0.2, 0.86 / count) * (np.arange(count) - (count - 1) / 2)


def draw_marks(axes: Axes, index: int, x: np.ndarray, y: np.ndarray) -> Line2D:
    """Draw the marks of one series, in the colour and shape of its index."""
    lap = index // len(COLOURS)  # From the ninth series on, colours with other shapes.
    [marks] = axes.plot(
        x,
        y,
        color=COLOURS[index % len(COLOURS)],
        marker=MARKERS[(index + lap) % len(MARKERS)],
        markersize=5,
        markeredgecolor="white",  # keeps neighbours of the same height apart
        markeredgewidth=0.3,
        linestyle="none",
        zorder=3,
    )
    return marks


def add_legend(figure: Figure, marks: Sequence[Line2D], names: Sequence[str]) -> None:
    """Add a legend above the panel, in as many columns as fit into its width."""
    width = figure.get_figwidth()
    entries = [0.5 + 0.085 * len(name) for name in names]  # inches, by an average letter's width
    fitting = len(names) if sum(entries) <= width else max(1, int(width / max(entries)))
    columns = ceil(len(names) / ceil(len(names) / fitting))
    figure.legend(
        marks,
        names,
        loc="outside upper center",
        frameon=False,
        ncols=columns,
        markerscale=1.2,
        handlelength=1.0,
        handletextpad=0.4,
        columnspacing=1.5,
    )
