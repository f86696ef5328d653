"""The file and the table of a confirmation, on hand-worked numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.report.confirmation import FILE, tables, write
from xlt_ray.search.confirmation import Confirmed, choose

LANGUAGES = ("en", "de", "ru")


def predictions(right: list[int], items: int = 10) -> Predictions:
    """Test predictions of some items a language, the first of which are right."""
    labels = np.zeros(3 * items, int)
    language = np.repeat(np.arange(3), items)
    wrong = np.concatenate([np.arange(items) >= count for count in right])
    return Predictions(wrong.astype(int), labels, language, LANGUAGES, np.ones(3 * items))


def test_the_table_has_both_scores_and_the_difference_to_plain(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    right = {"plain-seed8": [9, 5, 5], "plain-seed9": [9, 6, 4]}
    right |= {"02-seed8": [8, 9, 9], "02-seed9": [8, 9, 9]}
    for label, counts in right.items():
        predictions(counts).save(tmp_path / "predictions" / f"{label}.npz")
    candidates = [
        Confirmed("plain", 0, 0.5, np.array([0.5, 0.6]), np.array([0.5, 0.5])),
        Confirmed("02", 2, 0.95, np.array([0.8, 0.9]), np.array([0.9, 0.9])),
    ]
    write(candidates, [8, 9], choose(candidates), tmp_path, ("de", "ru"))
    (view,) = tables(tmp_path)
    cells = [list(column.cells) for column in view.columns]
    assert cells[0] == ["02 (winner)", "plain"]
    assert cells[1] == ["95.0", "50.0"]
    assert cells[2] == ["85.0 ± 7.1", "55.0 ± 7.1"]
    assert cells[3] == ["90.0 ± 0.0", "50.0 ± 0.0"]
    # 9 of 10 against 5 of 10 in both seeds and languages.
    assert cells[4][0].startswith("+40.0 [+") and cells[4][1] == ""
    low, high = (float(part) for part in cells[4][0].partition("[")[2].rstrip("]").split(", "))
    assert low < 40 < high


def test_runs_on_other_test_texts_have_no_difference(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    for label, items in (("plain-seed8", 10), ("02-seed8", 12), ("03-seed8", 10)):
        predictions([5, 5, 5], items).save(tmp_path / "predictions" / f"{label}.npz")
    candidates = [
        Confirmed(label, place, 0.9, np.array([0.8]), np.array([0.5]))
        for place, label in enumerate(("plain", "02", "03"))
    ]
    write(candidates, [8], choose(candidates), tmp_path, ("de", "ru"))
    (view,) = tables(tmp_path)
    labels, differences = list(view.columns[0].cells), list(view.columns[-1].cells)
    found = dict(zip(labels, differences, strict=True))
    assert found == {"plain (winner)": "", "02": "", "03": "+0.0 [+0.0, +0.0]"}


def test_no_difference_is_not_negative(tmp_path: Path) -> None:
    scores = {"label": "02", "searched": 0.5, "objectives": [0.5], "zero_shot": [0.5]}
    row = {**scores, "difference": [-0.0001, -0.02, 0.02]}
    content = {"seeds": [8], "winner": "02", "candidates": [row]}
    (tmp_path / FILE).write_text(json.dumps(content))
    (view,) = tables(tmp_path)
    assert list(view.columns[-1].cells) == ["+0.0 [-2.0, +2.0]"]


def test_one_seed_has_no_spread_and_plain_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    predictions([5, 5, 5]).save(tmp_path / "predictions" / "02-seed8.npz")
    candidates = [Confirmed("02", 2, 0.9, np.array([0.8]), np.array([0.5]))]
    write(candidates, [8], choose(candidates), tmp_path, ("de", "ru"))
    (view,) = tables(tmp_path)
    assert [list(column.cells) for column in view.columns] == [
        ["02 (winner)"],
        ["90.0"],
        ["80.0"],
        ["50.0"],
        [""],
    ]


def test_a_search_without_confirmation_has_no_table(tmp_path: Path) -> None:
    assert tables(tmp_path) == []
    with pytest.raises(ValueError):
        (tmp_path / FILE).write_text("{")
        tables(tmp_path)
