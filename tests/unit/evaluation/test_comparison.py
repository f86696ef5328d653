"""Comparisons over seeds: their numbers, and who is compared with whom."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from xlt_ray.evaluation.comparison import Comparison, compare
from xlt_ray.evaluation.intervals import Correct, Difference, accuracy, paired_difference
from xlt_ray.names import ZERO_SHOT_MEAN

LANGUAGES = ["de", "en", "ar"]


SEEDS = [7, 8, 9]


def runs(right: dict[str, int], seeds: int = 3, items: int = 100) -> dict[str, np.ndarray]:
    """In every run the first `right` items of a language are right."""
    order = np.arange(items)
    return {code: np.tile(order < count, (seeds, 1)) for code, count in right.items()}


CORRECT: dict[str, Correct] = {
    "plain": runs({"en": 90, "de": 60, "ar": 50}),
    "paper": runs({"en": 80, "de": 90, "ar": 50}),
    "rs-da": runs({"en": 90, "de": 61, "ar": 30}),
}


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(CORRECT, SEEDS, LANGUAGES, "en")


def test_columns_and_who_is_compared_with_whom(comparison: Comparison) -> None:
    assert comparison.languages == ("en", "de", "ar")
    assert comparison.columns == (ZERO_SHOT_MEAN, "en", "de", "ar")
    assert comparison.methods == ("plain", "paper", "rs-da")
    assert comparison.seeds == (7, 8, 9) and comparison.source == "en"
    compared = {name: list(found) for name, found in comparison.difference.items()}
    assert compared == {"plain": ["rs-da"], "paper": ["plain", "rs-da"], "rs-da": ["plain"]}
    for references in comparison.difference.values():
        assert all(tuple(columns) == comparison.columns for columns in references.values())


def test_the_longer_plain_fine_tuning_is_a_reference_of_its_own() -> None:
    methods = CORRECT | {"plain-long": runs({"en": 90, "de": 80, "ar": 52})}
    found = compare(methods, SEEDS, LANGUAGES, "en")
    assert found.references == ("plain", "plain-long", "rs-da")
    # Of German and Arabic: paper 90 and 50, plain-long 80 and 52, plain 60 and 50.
    assert found.difference["paper"]["plain-long"][ZERO_SHOT_MEAN].mean == pytest.approx(0.04)
    assert found.difference["plain-long"]["plain"][ZERO_SHOT_MEAN].mean == pytest.approx(0.11)


def test_source_is_no_part_of_the_zero_shot_mean(comparison: Comparison) -> None:
    assert comparison.accuracy["paper"][ZERO_SHOT_MEAN].mean == pytest.approx(0.7)
    assert comparison.accuracy["paper"][ZERO_SHOT_MEAN].deviation == pytest.approx(0, abs=1e-12)
    assert comparison.accuracy["paper"]["en"].mean == pytest.approx(0.8)
    difference = comparison.difference["paper"]["plain"]
    assert difference[ZERO_SHOT_MEAN].mean == pytest.approx(0.15)
    assert difference["en"].mean == pytest.approx(-0.1)
    assert difference["ar"] == Difference(0, 0, 0, 0, 0)
    verdicts = {column: found.verdict for column, found in difference.items()}
    assert verdicts == {
        ZERO_SHOT_MEAN: "better",
        "en": "worse",
        "de": "better",
        "ar": "no clear difference",
    }


def test_numbers_are_those_of_the_statistics() -> None:
    rng = np.random.default_rng(0)
    correct = {
        name: {code: rng.random((3, 40)) < 0.6 for code in LANGUAGES} for name in ("plain", "best")
    }
    found = compare(correct, SEEDS, LANGUAGES, "en")
    best, plain = correct["best"], correct["plain"]
    assert found.accuracy["best"][ZERO_SHOT_MEAN] == accuracy(best, ["de", "ar"])
    assert found.accuracy["best"]["en"] == accuracy(best, ["en"])
    difference = found.difference["best"]["plain"]
    assert difference[ZERO_SHOT_MEAN] == paired_difference(best, plain, ["de", "ar"])
    assert difference["ar"] == paired_difference(best, plain, ["ar"])


def test_what_cannot_be_compared() -> None:
    plain = CORRECT["plain"]
    fewer_seeds = {code: array[:2] for code, array in plain.items()}
    fewer_items = {code: array[:, :50] for code, array in plain.items()}
    with pytest.raises(ValueError, match=r"best, en: .*\(2, 100\).* 3 seeds"):
        compare({"plain": plain, "best": fewer_seeds}, SEEDS, LANGUAGES, "en")
    with pytest.raises(ValueError, match=r"best, en: .*\(3, 50\).* same for every method"):
        compare({"plain": plain, "best": fewer_items}, SEEDS, LANGUAGES, "en")
    with pytest.raises(ValueError, match=r"plain, en: .* 2 seeds"):
        compare({"plain": plain}, SEEDS[:2], LANGUAGES, "en")
    with pytest.raises(ValueError, match="best has no predictions in ar"):
        compare({"best": {"en": plain["en"], "de": plain["de"]}}, SEEDS, LANGUAGES, "en")
    with pytest.raises(ValueError, match="source language fr is not among de, en, ar"):
        compare(CORRECT, SEEDS, LANGUAGES, "fr")
    with pytest.raises(ValueError, match="no language other than"):
        compare(CORRECT, SEEDS, ["en"], "en")
    with pytest.raises(ValueError, match="no method"):
        compare({}, SEEDS, LANGUAGES, "en")


def test_import_brings_no_heavy_library() -> None:
    code = (
        "import sys, xlt_ray.evaluation.comparison; "
        "print(*{'pandas', 'scipy', 'torch', 'ray'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
