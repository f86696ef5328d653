"""The figures of docs/results.md show the differences and curves that they are given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from scripts.results_figures import differences, mean_curves
from tests.support.drawn import assert_texts_are_legible
from xlt_ray.evaluation.intervals import Difference


def compared() -> dict[str, Difference]:
    """A clear gain, and one whose interval over seeds includes zero."""
    return {
        "winner of the search": Difference(0.034, 0.012, 0.057, 0.01, 0.06),
        "a method with a longer name": Difference(-0.002, -0.02, 0.01, -0.03, 0.02),
    }


def test_differences_are_drawn_in_points_from_the_top() -> None:
    figure = differences(compared(), "plain")
    [axes] = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == list(compared())
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    ends = [
        segments[0][:, 0].tolist()
        for segments in (c.get_segments() for c in axes.collections if len(c.get_segments()) == 1)
    ]
    np.testing.assert_allclose(ends, [[1.2, 5.7], [-2.0, 1.0]])
    assert [text.get_text() for text in axes.texts] == ["+3.4", "-0.2"]
    assert_texts_are_legible(figure)


def test_only_a_clear_difference_has_a_colour() -> None:
    [axes] = differences(compared(), "plain").axes
    clear, open_ = (line for line in axes.lines if line.get_marker() == "o")
    assert clear.get_color() != open_.get_color()
    assert len(set(to_rgb(open_.get_color()))) == 1  # grey


def test_curves_have_the_mean_of_the_seeds() -> None:
    values = np.array([[0.2, 0.4], [0.4, 0.8]])
    figure = mean_curves({"plain": (np.array([5, 10]), values)}, "dev/likelihood/en (%)")
    [axes] = figure.axes
    [line] = axes.lines
    np.testing.assert_allclose(line.get_xydata(), [[5, 30], [10, 60]])
    assert_texts_are_legible(figure)


@pytest.mark.parametrize("draw", [lambda: differences({}, "plain"), lambda: mean_curves({}, "x")])
def test_nothing_to_draw_is_refused(draw: Callable[[], Figure]) -> None:
    with pytest.raises(ValueError, match="no method"):
        draw()
