"""The file and the table of a confirmation; pipeline and report use them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.table import Table

from xlt_ray.evaluation.intervals import Correct, OtherTexts, paired_difference, points
from xlt_ray.evaluation.saved_predictions import correct_of
from xlt_ray.files import json_text
from xlt_ray.names import BASELINE
from xlt_ray.search.confirmation import Choice, Confirmed
from xlt_ray.search.trials import seed_label

FILE = "confirmation.json"
"""File in a search's folder."""


def write(
    candidates: Sequence[Confirmed],
    seeds: Sequence[int],
    choice: Choice,
    folder: Path,
    languages: Sequence[str],
) -> Path:
    """Write a confirmation with each candidate's difference to plain fine-tuning.

    Args:
        candidates: The candidates with their runs.
        seeds: The fresh seeds, in the order of the runs.
        choice: The winner.
        folder: The search's folder, which has the test predictions.
        languages: Codes of the target languages.

    Returns:
        The file.
    """

    @cache
    def correct(label: str) -> Correct:
        runs = [seed_label(label, seed) for seed in seeds]
        return correct_of([folder / "predictions" / f"{run}.npz" for run in runs])

    has_plain = any(one.label == BASELINE for one in candidates)
    rows = []
    for one in sorted(candidates, key=lambda one: -one.mean):
        row: dict[str, Any] = {
            "label": one.label,
            "searched": one.searched,
            "objectives": one.objectives.tolist(),
            "zero_shot": one.zero_shot.tolist(),
        }
        if has_plain and one.label != BASELINE:
            # A resumed search may have been forced onto another test set.
            with contextlib.suppress(OtherTexts):
                found = paired_difference(correct(one.label), correct(BASELINE), languages)
                row["difference"] = [found.mean, found.low, found.high]
        rows.append(row)
    content = {"seeds": list(seeds), "winner": choice.winner.label, "candidates": rows}
    path = folder / FILE
    path.write_text(json_text(content), encoding="utf-8")
    return path


def tables(folder: Path) -> list[Table]:
    """Return the table of a search's confirmation; none if it has no confirmation.

    Args:
        folder: The search's folder.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not JSON.
    """
    path = folder / FILE
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    view = Table(
        title=f"Confirmation with {len(content['seeds'])} fresh seed(s), in %",
        caption="Search: the dev objective that gave the candidate its place, partly by luck. "
        "Anew: the mean of the fresh seeds, which chooses the winner. Difference: test zero-shot "
        "mean minus plain fine-tuning's, in points, with the 95 % interval over items and seeds.",
    )
    view.add_column("candidate")
    for column in ("dev, search", "dev, anew", "test zero-shot", "difference to plain"):
        view.add_column(column, justify="right")
    for row in content["candidates"]:
        wins = row["label"] == content["winner"]
        view.add_row(
            row["label"] + (" (winner)" if wins else ""),
            f"{100 * row['searched']:.1f}",
            _spread(row["objectives"]),
            _spread(row["zero_shot"]),
            "{} [{}, {}]".format(*map(points, row["difference"])) if "difference" in row else "",
            style="bold" if wins else "",
        )
    return [view]


def _spread(values: Sequence[float]) -> str:
    """Return mean ± standard deviation in %; the mean alone for one value."""
    mean = f"{100 * fmean(values):.1f}"
    return f"{mean} ± {100 * stdev(values):.1f}" if len(values) > 1 else mean
