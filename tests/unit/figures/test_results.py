"""What is drawn is what was given, all of it is inside the picture, and pyplot stays out of it."""

from __future__ import annotations

import struct
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.support.drawn import assert_texts_are_legible
from xlt_ray.figures.results import (
    Points,
    accuracy_by_language,
    alignment_by_language,
    language_pairs,
    projection,
)
from xlt_ray.figures.style import DPI, save
from xlt_ray.names import ZERO_SHOT_MEAN

LANGUAGES = [
    *("en", "ar", "bg", "de", "el", "es", "fr", "hi"),
    *("ru", "sw", "th", "tr", "ur", "vi", "zh"),
]
METHODS = ["plain", "rs-da", "rs-rp", "adv", "paper", "best", "ear-no-push", "one-more"]
SIZES = [(2, 1), (2, 2), (10, 8), (15, 7)]


def accuracies(languages: list[str], methods: list[str]) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(len(languages))
    table: dict[str, dict[str, Any]] = {}
    for name in methods:
        low, mean, high = np.sort(rng.uniform(0.6, 0.9, (3, len(languages) + 1)), axis=0)
        columns = [*reversed(languages), ZERO_SHOT_MEAN]
        table[name] = dict(zip(columns, zip(mean, low, high, strict=True), strict=True))
    return table


def alignments(languages: list[str], series: list[str]) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(1)
    return {name: {code: rng.uniform() for code in reversed(languages)} for name in series}


def pairs(languages: list[str]) -> np.ndarray:
    return np.random.default_rng(2).uniform(0.3, 0.9, (len(languages), len(languages)))


def points(languages: list[str], texts: int, title: str = "before") -> Points:
    rng = np.random.default_rng(texts)
    return Points(rng.normal(size=(texts, 2)), rng.integers(0, len(languages), texts), title)


def every_picture(languages: list[str], names: list[str]) -> list[Figure]:
    return [
        accuracy_by_language(accuracies(languages, names), languages, languages[0]),
        alignment_by_language(alignments(languages[1:], names), languages[1:]),
        language_pairs(pairs(languages), languages),
        projection(points(languages, 60), points(languages, 40, "after"), languages),
    ]


def legend(figure: Figure) -> list[str]:
    [found] = figure.legends
    return [text.get_text() for text in found.get_texts()]


def marks(figure: Figure) -> list[np.ndarray]:
    """The x and y of each series' marks (marks, 2), in the order of the legend."""
    return [np.asarray(line.get_xydata()) for line in figure.axes[0].lines]


def first_lines(labels: list[Text]) -> list[str]:
    return [label.get_text().split("\n")[0] for label in labels]


@pytest.mark.parametrize(("languages", "methods"), SIZES)
def test_accuracy_shows_every_mean_and_interval(languages: int, methods: int) -> None:
    codes, names = LANGUAGES[:languages], METHODS[:methods]
    table = accuracies(codes, names)
    figure = accuracy_by_language(table, codes, "en")
    assert legend(figure) == names
    [axes] = figure.axes
    bars = [item for item in axes.collections if isinstance(item, LineCollection)]
    ticks = axes.get_xticks()
    for name, drawn, bar in zip(names, marks(figure), bars, strict=True):
        expected = 100 * np.array([table[name][column] for column in [*codes, ZERO_SHOT_MEAN]])
        assert drawn[:, 1] == pytest.approx(expected[:, 0])
        ends = np.array(bar.get_segments())
        assert ends[:, 0, 1] == pytest.approx(expected[:, 1])
        assert ends[:, 1, 1] == pytest.approx(expected[:, 2])
        # An interval goes through its mark, and a mark is nearest to its own language's tick.
        assert (ends[:, :, 0] == drawn[:, :1]).all()
        assert (np.abs(drawn[:, :1] - ticks).argmin(1) == np.arange(len(ticks))).all()


def test_source_is_first_and_the_mean_last_both_set_apart() -> None:
    codes = ["de", "sw", "en", "zh"]
    figure = accuracy_by_language(accuracies(codes, METHODS), codes, "en")
    [axes] = figure.axes
    assert first_lines(axes.get_xticklabels()) == ["en", "de", "sw", "zh", "zero-shot"]
    gaps = np.diff(axes.get_xticks())
    assert min(gaps[0], gaps[-1]) > gaps[1:-1].max() > 0
    assert "(%)" in axes.get_ylabel()
    # No two marks share a place.
    places = np.concatenate([series[:, 0] for series in marks(figure)])
    assert len(np.unique(places)) == len(METHODS) * 5


def test_accuracy_range_comes_from_the_data() -> None:
    table = {"plain": dict.fromkeys(["en", "de", ZERO_SHOT_MEAN], (0.75, 0.7, 0.8))}
    low, high = accuracy_by_language(table, ["en", "de"], "en").axes[0].get_ylim()
    assert 69 < low < 70 and 80 < high < 81


def test_rounding_may_put_a_mean_outside_its_interval() -> None:
    mean = 0.1 + 0.2
    table = {"plain": dict.fromkeys(["en", "de", ZERO_SHOT_MEAN], (mean, 0.3, 0.3))}
    assert mean > 0.3
    [series] = marks(accuracy_by_language(table, ["en", "de"], "en"))
    assert series[:, 1] == pytest.approx([30, 30, 30])


@pytest.mark.parametrize("methods", [2, 3, 5, 8])
def test_marks_of_equal_values_lie_side_by_side(methods: int) -> None:
    names = [f"m{i}" for i in range(methods)]
    columns = dict.fromkeys([*LANGUAGES, ZERO_SHOT_MEAN], (0.75, 0.7, 0.8))
    for figure, axis in (
        (accuracy_by_language(dict.fromkeys(names, columns), LANGUAGES, "en"), 0),
        (alignment_by_language(dict.fromkeys(names, dict.fromkeys("ab", 0.5)), ["a", "b"]), 1),
    ):
        FigureCanvasAgg(figure).draw()
        [axes] = figure.axes
        pixels = [axes.transData.transform(series)[:, axis] for series in marks(figure)]
        apart = np.diff(np.sort(np.concatenate(pixels))).min() / figure.dpi * 72
        assert apart > 0.95 * axes.lines[0].get_markersize()


def test_series_differ_in_colour_and_in_shape() -> None:
    names = [f"method {i}" for i in range(20)]
    lines = accuracy_by_language(accuracies(["en", "de"], names), ["en", "de"], "en").axes[0].lines
    looks = [(line.get_color(), line.get_marker()) for line in lines]
    assert len(set(looks)) == 20
    for values in zip(*looks[:8], strict=True):
        assert len(set(values)) == 8


def test_alignment_on_a_worked_example() -> None:
    values = {"before": {"de": 0.9, "sw": 0.5}, "plain": {"sw": 0.25, "de": 0.75}}
    figure = alignment_by_language(values, ["sw", "de"])
    assert legend(figure) == ["before", "plain"]
    [axes] = figure.axes
    assert first_lines(axes.get_yticklabels()) == ["sw", "de", "mean"]
    before, plain = marks(figure)
    assert before[:, 0] == pytest.approx([50, 90, 70])
    assert plain[:, 0] == pytest.approx([25, 75, 50])
    for series in (before, plain):
        assert np.abs(series[:, 1:] - axes.get_yticks()).argmin(1).tolist() == [0, 1, 2]
    # The first language is on top.
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert "(%)" in axes.get_xlabel()


@pytest.mark.parametrize("size", [2, 10, 11, 15])
def test_cells_say_their_values(size: int) -> None:
    codes = LANGUAGES[:size]
    matrix = pairs(codes)
    axes = language_pairs(matrix, codes).axes[0]
    digits = 1 if size <= 10 else 0
    said = {text.get_position(): text.get_text() for text in axes.texts}
    expected = {
        (column, row): f"{100 * matrix[row, column]:.{digits}f}"
        for row in range(size)
        for column in range(size)
    }
    assert said == expected
    assert first_lines(axes.get_xticklabels()) == first_lines(axes.get_yticklabels()) == codes
    assert "hypothesis" in axes.get_xlabel() and "premise" in axes.get_ylabel()
    [image] = axes.images
    assert np.asarray(image.get_array()) == pytest.approx(100 * matrix)
    assert axes.yaxis_inverted()


def test_means_over_pairs_on_a_worked_example() -> None:
    figure = language_pairs(np.array([[0.9, 0.5], [0.4, 0.8]]), ["en", "de"])
    title = figure.get_suptitle()
    assert [word for word in title.split() if word[0].isdigit()] == ["65.0", "85.0", "45.0"]


@pytest.mark.parametrize("size", [2, 10, 15])
def test_projection_draws_every_point_in_its_languages_colour(size: int) -> None:
    codes = LANGUAGES[:size]
    panels = points(codes, 300), points(codes, 200, "after")
    figure = projection(*panels, codes)
    assert legend(figure) == codes
    colours = [to_rgb(handle.get_color()) for handle in figure.legends[0].legend_handles]  # type: ignore[union-attr]
    assert colours[0] == (0, 0, 0)
    for one, other in combinations(colours, 2):
        assert np.abs(np.subtract(one, other)).max() > 0.1
    for axes, given in zip(figure.axes, panels, strict=True):
        assert axes.get_title() == given.title
        [drawn] = axes.collections
        places, shades = np.asarray(drawn.get_offsets()), np.asarray(drawn.get_facecolor())
        found = sorted((*place, *shade[:3]) for place, shade in zip(places, shades, strict=True))
        expected = sorted(
            (*place, *colours[language])
            for place, language in zip(given.coordinates, given.language, strict=True)
        )
        assert np.array(found) == pytest.approx(np.array(expected))
        # Those of the source are drawn above all others.
        sources = int((given.language == 0).sum())
        black = (shades[:, :3] == 0).all(1)
        assert black[-sources:].all() and black.sum() == sources


def test_panels_have_one_scale_for_both_axes() -> None:
    rng = np.random.default_rng(0)
    flat = Points(rng.normal(size=(50, 2)) * [10, 1], np.arange(50) % 2, "flat")
    figure = projection(flat, flat, ["en", "de"])
    FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        box = axes.get_window_extent()
        assert box.width / (right - left) == pytest.approx(box.height / (top - bottom))


@pytest.mark.parametrize(("languages", "methods"), SIZES)
@pytest.mark.parametrize("suffix", ["", " with a push margin"])
def test_no_text_is_cut_off_or_covers_another(languages: int, methods: int, suffix: str) -> None:
    names = [name + suffix for name in METHODS[:methods]]
    for figure in every_picture(LANGUAGES[:languages], names):
        assert_texts_are_legible(figure)


def test_mistakes_are_refused() -> None:
    codes = ["en", "de"]
    good = accuracies(codes, ["plain"])
    with pytest.raises(ValueError, match="'fr' is not among en, de"):
        accuracy_by_language(good, codes, "fr")
    with pytest.raises(ValueError, match="nothing"):
        accuracy_by_language({}, codes, "en")
    with pytest.raises(ValueError, match="plain: no value for sw"):
        accuracy_by_language(good, [*codes, "sw"], "en")
    for wrong in ((75, 70, 80), (0.5, -0.1, 0.6), (float("nan"), 0.4, 0.6)):
        with pytest.raises(ValueError, match=r"plain.*\[0, 1\]"):
            accuracy_by_language({"plain": {**good["plain"], "de": wrong}}, codes, "en")
    with pytest.raises(ValueError, match="before: no value for de"):
        alignment_by_language({"before": {"fr": 0.5}}, ["fr", "de"])
    with pytest.raises(ValueError, match="nothing"):
        alignment_by_language({"before": {"fr": 0.5}}, [])
    for matrix in (np.zeros((2, 3)), np.zeros((3, 3)), np.zeros(4), np.full((2, 2), 65.0)):
        with pytest.raises(ValueError, match="matrix"):
            language_pairs(matrix, codes)
    with pytest.raises(ValueError, match="two or more"):
        language_pairs(np.zeros((1, 1)), ["en"])
    right = points(codes, 3)
    nan = np.full((3, 2), np.nan)
    for one in (
        Points(right.coordinates, np.array([0, 1, 2]), "wrong"),
        Points(right.coordinates, np.array([0, 1, -1]), "wrong"),
        Points(right.coordinates, np.array([0, 1]), "wrong"),
        Points(right.coordinates.T, np.array([0, 1]), "wrong"),
        Points(nan, right.language, "wrong"),
    ):
        with pytest.raises(ValueError, match="wrong"):
            projection(right, one, codes)


def test_saved_pictures_are_png_of_the_figures_size(tmp_path: Path) -> None:
    for index, figure in enumerate(every_picture(LANGUAGES[:4], METHODS[:3])):
        path = tmp_path / f"{index}.png"
        path.write_text("replaced")
        save(figure, path)
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR"
        assert data[-8:-4] == b"IEND"
        pixels = struct.unpack(">II", data[16:24])
        assert pixels == tuple(int(inches * 150) for inches in figure.get_size_inches())
    assert DPI == 150
    with pytest.raises(OSError):
        save(figure, tmp_path / "missing" / "x.png")


def test_same_data_same_file(tmp_path: Path) -> None:
    for path in ("a", "b"):
        figure = projection(points(["en", "de"], 50), points(["en", "de"], 50), ["en", "de"])
        save(figure, tmp_path / path)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
