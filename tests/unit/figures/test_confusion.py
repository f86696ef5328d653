"""A confusion matrix shows the shares of each gold class and the accuracy of each language."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.drawn import assert_texts_are_legible
from xlt_ray.figures.confusion import confusion

COUNTS = np.array([[[3, 1], [0, 4]], [[1, 1], [0, 0]]])


def test_shares_and_accuracies_on_a_worked_example() -> None:
    axes = confusion(COUNTS, ["en", "de"], "en", ["yes", "no"]).axes[0]
    titles = [text.get_text() for text in axes.texts if " %" in text.get_text()]
    assert titles == ["en (source) 87.5 %", "de 50.0 %"]
    cells = [text.get_text() for text in axes.texts if text.get_text().isdecimal()]
    # The rows of both languages side by side; a class without a text has zeros.
    assert cells == ["75", "25", "50", "50", "0", "100", "0", "0"]


@pytest.mark.parametrize(("languages", "classes"), [(1, 2), (3, 3), (15, 12), (2, 20)])
def test_texts_are_legible(languages: int, classes: int) -> None:
    counts = np.random.default_rng(0).integers(0, 50, (languages, classes, classes))
    codes = [f"l{number}" for number in range(languages)]
    names = [f"class number {number}" for number in range(classes)]
    figure = confusion(counts, codes, codes[0], names)
    assert_texts_are_legible(figure)
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert (len(shown) > languages) == (classes <= 12)


def test_dollar_signs_in_names_are_no_formula() -> None:
    # As a formula, the second could not even be drawn.
    figure = confusion(COUNTS, ["en", "de"], "en", ["$1-$5", "$_$"])
    figure.canvas.draw()


def test_counts_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="3 classes"):
        confusion(COUNTS, ["en", "de"], "en", ["a", "b", "c"])
