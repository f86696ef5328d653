"""Tables of a comparison: the terminal, CSV, JSON and Markdown agree."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from xlt_ray.evaluation.comparison import Comparison, compare
from xlt_ray.evaluation.intervals import Accuracy, Correct, Difference
from xlt_ray.names import ZERO_SHOT_MEAN
from xlt_ray.report.comparison_tables import markdown, tables, write

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


def printed(view: Table, width: int = 200) -> list[list[str]]:
    """The cells of a table's rows."""
    out = io.StringIO()
    Console(file=out, width=width).print(view)
    lines = [line for line in out.getvalue().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def grids(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown text: header and rows, as cells."""
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    rows = [[line[2:-2].split(" | ") for line in block.strip().split("\n")] for block in blocks]
    assert all(row[1] == ["---"] * len(row[0]) for row in rows)
    assert all(len(line) == len(row[0]) for row in rows for line in row)
    return [[row[0], *row[2:]] for row in rows]


def test_accuracies_in_the_terminal_and_in_markdown(comparison: Comparison) -> None:
    expected = [
        ["plain", "55.0 ± 0.0", "90.0 ± 0.0", "60.0 ± 0.0", "50.0 ± 0.0"],
        ["paper", "70.0 ± 0.0", "80.0 ± 0.0", "90.0 ± 0.0", "50.0 ± 0.0"],
        ["rs-da", "45.5 ± 0.0", "90.0 ± 0.0", "61.0 ± 0.0", "30.0 ± 0.0"],
    ]
    assert printed(tables(comparison)[0]) == expected
    header = ["method", "zero-shot", "en", "de", "ar"]
    assert grids(markdown(comparison))[0] == [header, *expected]


def made(points: dict[str, tuple[float, float, float]]) -> dict[str, Difference]:
    return {
        column: Difference(mean / 100, low / 100, high / 100, mean / 100 - 0.02, mean / 100 + 0.02)
        for column, (mean, low, high) in points.items()
    }


HAND_MADE = Comparison(
    seeds=(1, 2),
    source="en",
    languages=("en", "de", "ar", "sw"),
    methods=("plain", "best|1"),
    accuracy={
        name: {
            column: Accuracy(0.536, 0.0081) for column in (ZERO_SHOT_MEAN, "en", "de", "ar", "sw")
        }
        for name in ("plain", "best|1")
    },
    difference={
        "plain": {},
        "best|1": {
            "plain": made(
                {
                    ZERO_SHOT_MEAN: (1.52, 0.41, 2.6),
                    "en": (-0.9, -1.5, -0.3),
                    "de": (2.0, 1.0, 3.0),
                    "ar": (-0.02, -1.0, 1.0),
                    "sw": (3.0, 1.26, 4.0),
                }
            )
        },
    },
)


def test_differences_in_the_terminal_and_in_markdown() -> None:
    first, second = tables(HAND_MADE)
    assert printed(first)[0][:2] == ["plain", "53.6 ± 0.8"]
    shown = "+1.5 [+0.4, +2.6] no clear difference"
    row = ["best|1", shown, "[-0.5, +3.5]", "sw", "-", "en de ar"]
    assert printed(second) == [row]
    text = markdown(HAND_MADE)
    assert r"best\|1" in text
    _, means, languages = grids(text.replace(r"\|", "/"))
    assert means == [
        ["method", "zero-shot", "over seeds", "better in", "worse in", "no clear difference in"],
        ["best/1", *row[1:]],
    ]
    assert languages == [
        ["language", "best/1"],
        ["zero-shot", "+1.5 [+0.4, +2.6]"],
        ["en", "-0.9 [-1.5, -0.3]"],
        ["de", "+2.0 [+1.0, +3.0]"],
        ["ar", "+0.0 [-1.0, +1.0]"],
        ["sw", "+3.0 [+1.3, +4.0] better"],
    ]


def test_every_reference_has_its_tables(comparison: Comparison) -> None:
    assert len(tables(comparison)) == 3
    found = grids(markdown(comparison))
    assert [[line[0] for line in grid[1:]] for grid in found] == [
        ["plain", "paper", "rs-da"],
        ["paper", "rs-da"],
        ["zero-shot", "en", "de", "ar"],
        ["plain", "paper"],
        ["zero-shot", "en", "de", "ar"],
    ]


def test_no_figure_is_lost_in_a_narrow_terminal() -> None:
    codes = ["en", *(f"{one}{two}" for one in "abcdefg" for two in "yz")]
    rng = np.random.default_rng(0)
    correct = {
        name: {code: rng.random((2, 30)) < 0.5 for code in codes} for name in ("plain", "best")
    }
    for view in tables(compare(correct, [1, 2], codes, "en")):
        wide, narrow = printed(view, 300), printed(view, 100)
        for column, cell in enumerate(wide[-1]):
            folded = "".join(line[column] for line in narrow).replace(" ", "")
            assert folded.endswith(cell.replace(" ", ""))


def test_one_seed_has_neither_deviation_nor_seed_interval(tmp_path: Path) -> None:
    correct = {name: {c: a[:1] for c, a in found.items()} for name, found in CORRECT.items()}
    found = compare(correct, [7], LANGUAGES, "en")
    views = tables(found)
    assert printed(views[0])[0] == ["plain", "55.0", "90.0", "60.0", "50.0"]
    header = grids(markdown(found))[1][0]
    assert header == ["method", "zero-shot", "better in", "worse in", "no clear difference in"]
    assert "t-interval" not in markdown(found) and "t-interval" in markdown(HAND_MADE)
    as_csv, as_json, _ = write(found, tmp_path)
    with as_csv.open(newline="", encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["method"] == "paper")
    assert row["deviation"] == row["plain/seed_low"] == row["plain/seed_high"] == ""
    record = json.loads(as_json.read_text(encoding="utf-8"))
    assert record["difference"]["paper"]["plain"]["de"]["seed_low"] is None


def test_one_method_is_only_listed() -> None:
    found = compare({"plain": CORRECT["plain"]}, SEEDS, LANGUAGES, "en")
    assert len(tables(found)) == 1 and len(grids(markdown(found))) == 1
    neither = compare({"best": CORRECT["paper"]}, SEEDS, LANGUAGES, "en")
    assert neither.references == () and neither.difference == {"best": {}}


def test_files_agree(comparison: Comparison, tmp_path: Path) -> None:
    paths = write(comparison, tmp_path)
    assert [path.name for path in paths] == ["comparison.csv", "comparison.json", "comparison.md"]
    with paths[0].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    record = json.loads(paths[1].read_text(encoding="utf-8"))
    assert paths[2].read_text(encoding="utf-8") == markdown(comparison)
    assert record["seeds"] == SEEDS and record["languages"] == ["en", "de", "ar"]
    assert record["source"] == "en" and record["methods"] == ["plain", "paper", "rs-da"]

    keys = {"difference": "mean"} | {
        key: key for key in ("low", "high", "seed_low", "seed_high", "verdict")
    }
    assert list(rows[0]) == [
        *("method", "column", "seeds", "accuracy", "deviation"),
        *(f"{reference}/{key}" for reference in ("plain", "rs-da") for key in keys),
    ]
    assert len(rows) == len(comparison.methods) * len(comparison.columns)
    for row in rows:
        name, column = row["method"], row["column"]
        assert row["seeds"] == "7 8 9"
        scored = record["accuracy"][name][column]
        assert float(row["accuracy"]) == scored["mean"]
        assert float(row["deviation"]) == scored["deviation"]
        for reference in ("plain", "rs-da"):
            found = record["difference"][name].get(reference, {}).get(column, {})
            assert bool(found) == (name != reference)
            for key, name_in_json in keys.items():
                assert row[f"{reference}/{key}"] == str(found.get(name_in_json, ""))
    best = next(row for row in rows if (row["method"], row["column"]) == ("paper", ZERO_SHOT_MEAN))
    assert float(best["plain/difference"]) == pytest.approx(0.15)
    assert best["plain/verdict"] == "better"
