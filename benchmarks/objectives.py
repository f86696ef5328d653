"""How well each dev objective orders recorded trainings by what transfers.

    python -m benchmarks.objectives benchmarks/demo_recipes.jsonl

Spearman's rank correlation over the trainings of a table (benchmarks/search_table.py) between an
objective at their ends and the accuracy on all labelled dev texts of the target languages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.measuring import show
from xlt_ray.evaluation.intervals import rank_correlation
from xlt_ray.evaluation.scores import objectives
from xlt_ray.names import ZERO_SHOT_ACCURACY

SOURCE = "en"
"""Source language of the recorded trainings."""
TRUTH = f"dev/{ZERO_SHOT_ACCURACY}"
"""What transfers: accuracy on the labelled dev texts of the target languages."""


def main(
    file: Annotated[Path, typer.Argument(help="Recorded trainings.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures.")] = None,
) -> None:
    """Correlate every objective that reads no target-language label."""
    trainings = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    ends = [training["curve"][-1] for training in trainings]
    truth = np.array([end[TRUTH] for end in ends])
    better = truth > np.median(truth)
    rows = []
    for name in objectives(SOURCE, target_labels=False):
        values = np.array([end[name] for end in ends])
        rows.append(
            {
                "objective": name,
                "all trainings": correlation(values, truth),
                "the better half": correlation(values[better], truth[better]),
                "accuracy of its best, %": f"{100 * truth[values == values.max()].mean():.1f}",
            }
        )
    facts = {
        "trainings": f"{len(truth)}, accuracy on the target languages' dev texts "
        f"{100 * truth.min():.1f} to {100 * truth.max():.1f} %, "
        f"median {100 * np.median(truth):.1f} %",
        "columns": "Spearman's rank correlation with that accuracy, and the accuracy of the "
        "training that the objective ranks first; of several, the mean",
    }
    show("Objectives", rows, json_file, facts)


def correlation(values: np.ndarray, truth: np.ndarray) -> str:
    """Spearman's rank correlation as text; empty where one side is constant."""
    try:
        return f"{rank_correlation(values.tolist(), truth.tolist())[0]:+.2f}"
    except ValueError:
        return ""


if __name__ == "__main__":
    typer.run(main)
