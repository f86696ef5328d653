"""Predictions kept in a file, and which of them are right."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from xlt_ray.evaluation.saved_predictions import Predictions

PREDICTIONS = Predictions(
    predicted=np.array([0, 1, 2, 2, 0, 1, 1]),
    labels=np.array([0, 2, 2, 2, 1, 0, 1]),
    language=np.array([0, 0, 0, 1, 1, 2, 2]),
    languages=("en", "zh-Hant", "中文"),
)


def test_right_answers_by_language_in_the_order_of_the_items() -> None:
    correct = PREDICTIONS.correct()
    assert {code: right.tolist() for code, right in correct.items()} == {
        "en": [True, False, True],
        "zh-Hant": [True, False],
        "中文": [False, True],
    }
    assert all(right.dtype == bool for right in correct.values())


def test_items_of_a_language_need_not_stand_together() -> None:
    order = np.array([5, 2, 4, 0, 6, 3, 1])
    mixed = Predictions(
        PREDICTIONS.predicted[order],
        PREDICTIONS.labels[order],
        PREDICTIONS.language[order],
        ["en", "zh-Hant", "中文"],
    )
    assert {code: right.tolist() for code, right in mixed.correct().items()} == {
        "en": [True, True, False],
        "zh-Hant": [False, True],
        "中文": [False, True],
    }


@pytest.mark.parametrize("opened", [False, True])
def test_file_holds_all_of_them(tmp_path: Path, opened: bool) -> None:
    path = tmp_path / "predictions.npz"
    PREDICTIONS.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.npz"]
    # A tracked artifact is read from memory.
    found = Predictions.load(io.BytesIO(path.read_bytes()) if opened else path)
    for name in ("predicted", "labels", "language"):
        assert getattr(found, name).tolist() == getattr(PREDICTIONS, name).tolist()
    assert found.languages == PREDICTIONS.languages
    assert all(type(code) is str for code in found.languages)


def test_thousands_of_classes_and_languages_survive(tmp_path: Path) -> None:
    ids = np.array([0, 255, 256, 32_767])
    Predictions(ids, ids[::-1], np.array([0, 1, 299, 150]), [f"l{i}" for i in range(300)]).save(
        tmp_path / "many.npz"
    )
    found = Predictions.load(tmp_path / "many.npz")
    assert found.predicted.tolist() == ids.tolist()
    assert found.labels.tolist() == ids[::-1].tolist()
    assert found.language.tolist() == [0, 1, 299, 150]
