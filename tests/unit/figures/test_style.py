"""Saved pictures, readable cells, and figures without pyplot."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from xlt_ray.figures.results import (
    language_pairs,
)
from xlt_ray.figures.style import DPI, new_figure, offsets, save

LANGUAGES = [f"l{number}" for number in range(15)]


def test_a_saved_picture_is_a_png_of_the_figure_s_size(tmp_path: Path) -> None:
    figure, axes = new_figure(4.0, 3.0)
    axes.plot([0, 1])
    path = tmp_path / "x.png"
    path.write_text("replaced")
    save(figure, path)
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR"
    assert data[-8:-4] == b"IEND" and DPI == 150
    assert struct.unpack(">II", data[16:24]) == (600, 450)
    save(figure, tmp_path / "y.png")
    assert (tmp_path / "y.png").read_bytes() == data
    with pytest.raises(OSError):
        save(figure, tmp_path / "missing" / "x.png")


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_marks_of_a_place_keep_to_it(count: int) -> None:
    shifts = offsets(count)
    assert shifts.sum() == pytest.approx(0) and np.ptp(shifts) < 0.86
    assert len(set(shifts.tolist())) == count


def contrast(one: Any, other: Any) -> float:
    """The contrast ratio of two colours by WCAG 2, from 1 to 21."""

    def luminance(colour: Any) -> float:
        parts = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_cells_are_readable_over_the_whole_range() -> None:
    matrix = np.linspace(0, 1, 225).reshape(15, 15)
    axes = language_pairs(matrix, LANGUAGES).axes[0]
    [image] = axes.images
    for text in axes.texts:
        column, row = text.get_position()
        background = image.to_rgba(100 * matrix[int(row), int(column)])
        assert contrast(text.get_color(), background[:3]) >= 4.5  # level AA


def test_a_matrix_of_one_value_can_be_drawn(tmp_path: Path) -> None:
    figure = language_pairs(np.full((2, 2), 0.5), ["en", "de"])
    save(figure, tmp_path / "same.png")
    assert {text.get_text() for text in figure.axes[0].texts} == {"50.0"}


def test_pyplot_is_never_imported_and_matplotlib_only_to_draw(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import numpy as np
from xlt_ray.figures import results, style
assert not any(name.split(".")[0] == "matplotlib" for name in sys.modules), "at import"
codes = ["en", "de"]
points = results.Points(np.ones((3, 2)), np.array([0, 1, 1]), "title")
column = {"en": (0.5, 0.4, 0.6), "de": (0.5, 0.4, 0.6), "zero_shot_mean": (0.5, 0.4, 0.6)}
for figure in (
    results.accuracy_by_language({"plain": column}, codes, "en"),
    results.alignment_by_language({"plain": {"de": 0.5}}, ["de"]),
    results.language_pairs(np.full((2, 2), 0.5), codes),
    results.projection(points, points, codes),
):
    style.save(figure, Path(sys.argv[1]))
assert "matplotlib.figure" in sys.modules
assert "matplotlib.pyplot" not in sys.modules, "pyplot"
"""
    arguments = [sys.executable, "-c", script, str(tmp_path / "x.png")]
    done = subprocess.run(
        arguments, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[3]
    )
    assert done.returncode == 0, done.stderr
