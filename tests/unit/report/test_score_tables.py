"""Scores of a model as the terminal shows them."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from xlt_ray.inference.scoring import Score, Scores
from xlt_ray.report.score_tables import show


def test_scores_are_in_percent_and_the_source_has_no_alignment() -> None:
    languages = {
        "en": Score(0.9, 0.8, 0.95, 9, 10, macro_f1=0.85, calibration_error=0.05),
        "de": Score(0.5, 0.4, 0.6, 5, 10, macro_f1=0.45, calibration_error=0.2),
    }
    alignment = {
        **{"retrieval/de": 0.25, "margin/de": 0.125},
        **{"retrieval/mean": 0.25, "margin/mean": 0.125},
    }
    matrix = np.array([[0.9, 0.1], [0.2, 0.5]])
    out = io.StringIO()
    scores = Scores("model", "demo", "test", "en", languages, 0.5, 0.45, alignment, matrix)
    show(scores, Console(file=out, width=200))
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in out.getvalue().splitlines()
        if line.startswith("│")
    ]
    assert rows == [
        ["en (trained on)", "90.0", "[80.0, 95.0]", "85.0", "5.0", "10", "", ""],
        ["de", "50.0", "[40.0, 60.0]", "45.0", "20.0", "10", "25.0", "0.125"],
        ["zero-shot mean", "50.0", "", "45.0", "", "", "25.0", "0.125"],
        ["en", "90.0", "10.0"],
        ["de", "20.0", "50.0"],
    ]
