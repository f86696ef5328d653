"""Scoring requests and scores; `tests/unit/cli/test_evaluate.py` scores a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from xlt_ray.errors import UserError
from xlt_ray.inference.scoring import Score, Scores, ScoringRequest, check_output, task_to_score


def wilson(correct: int, examples: int) -> Score:
    """The score of two classes, of which the first is always predicted."""
    labels = np.array([0] * correct + [1] * (examples - correct))
    return Score.of(np.tile([0.75, 0.25], (examples, 1)), labels)


def test_wilson_interval_by_hand() -> None:
    """p = 8/10, z = 1.959964: centre (p + z²/2n) / (1 + z²/n), half-width as in Wilson (1927)."""
    z, n, p = 1.959964, 10, 0.8
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    score = wilson(8, 10)
    assert (score.accuracy, score.correct, score.examples) == (0.8, 8, 10)
    assert (score.low, score.high) == pytest.approx((centre - half, centre + half), abs=1e-6)


def test_wilson_interval_of_a_perfect_score_is_not_a_point() -> None:
    score = wilson(5, 5)
    assert score.accuracy == 1.0 and score.low < 0.6 and score.high == pytest.approx(1.0)


def test_a_class_that_is_never_predicted_counts_in_macro_f1() -> None:
    """F1 of the first class 2·8 / (2·8 + 2), of the other 0; a confidence of 75 %, 80 % right."""
    score = wilson(8, 10)
    assert score.macro_f1 == pytest.approx(8 / 18)
    assert score.calibration_error == pytest.approx(0.05)


def test_languages_are_added_to_the_task() -> None:
    task = task_to_score("xnli", None, ["de", "xx"])
    assert task.target_languages[-1] == "xx" and task.target_languages.count("de") == 1
    assert "xx" not in task_to_score("xnli", None, None).languages


def test_a_malformed_code_is_refused() -> None:
    with pytest.raises(UserError, match="--languages"):
        task_to_score("xnli", None, ["d/e"])


def request(folder: Path, **changes: object) -> ScoringRequest:
    """A request for a model of XNLI's classes, in another order."""
    names = {"0": "neutral", "1": "contradiction", "2": "entailment"}
    (folder / "config.json").write_text(json.dumps({"id2label": names}))
    values: dict[str, object] = {
        "model": folder,
        "task": task_to_score("xnli", None, None),
        "chosen_languages": ["de", "en", "de"],
        "split": "test",
        "alignment": True,
        "generalized": True,
    }
    return ScoringRequest(**(values | changes))  # type: ignore[arg-type]


def test_a_request_is_checked_without_weights(tmp_path: Path) -> None:
    good = request(tmp_path)
    good.check()
    assert good.languages == ["de", "en"]
    with pytest.raises(UserError, match="--alignment: it takes the source language, en"):
        request(tmp_path, chosen_languages=["de", "fr"]).check()
    with pytest.raises(UserError, match="its classes are"):
        request(tmp_path, task=task_to_score("pawsx", None, None)).check()
    with pytest.raises(UserError, match="there is no model in that folder"):
        request(tmp_path, model=tmp_path / "nowhere").check()


def test_scores_are_written_unrounded(tmp_path: Path) -> None:
    languages = {"en": wilson(2, 3), "de": wilson(1, 3)}
    matrix = np.array([[2 / 3, 0.5], [0.25, 1 / 3]])
    scores = Scores(
        "m", "xnli", "test", "en", languages, 1 / 3, 0.25, {"retrieval/de": 0.5}, matrix
    )
    scores.write(tmp_path / "scores.json")
    written = json.loads((tmp_path / "scores.json").read_text())
    assert "matrix" not in written
    assert written["languages"]["en"]["accuracy"] == 2 / 3
    assert written["languages"]["de"]["macro_f1"] == 0.25
    assert (written["zero_shot_mean"], written["zero_shot_macro_f1"]) == (1 / 3, 0.25)
    assert written["generalized"]["accuracy"]["de"] == {"en": 0.25, "de": 1 / 3}


def test_output_must_be_json(tmp_path: Path) -> None:
    check_output(tmp_path / "scores.json")
    with pytest.raises(UserError, match=r"it must end in \.json"):
        check_output(tmp_path / "scores.csv")
