"""Tables of a comparison over seeds: terminal, CSV, JSON, Markdown. The report calls them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from xlt_ray.evaluation.comparison import Comparison
from xlt_ray.evaluation.intervals import (
    Accuracy,
    Difference,
    Direction,
    points,
)
from xlt_ray.files import json_text
from xlt_ray.names import ZERO_SHOT_MEAN

_VERDICTS: tuple[Direction, ...] = ("better", "worse", "no clear difference")


def tables(comparison: Comparison) -> list[Table]:
    """Return the tables of a comparison for the terminal.

    Args:
        comparison: The comparison.

    Returns:
        A table of accuracies in %, and one table of differences in points for each reference. It
        has the difference of the zero-shot mean with its intervals, and the languages by verdict.
    """
    header, rows = _accuracies(comparison)
    views = [_view(_accuracy_title(comparison), header, rows)]
    for reference in comparison.references:
        header, rows = _differences(comparison, reference)
        view = _view(f"Difference to {reference}, in points", header, rows)
        view.caption = _note(comparison)
        views.append(view)
    return views


def markdown(comparison: Comparison) -> str:
    """Return a comparison as GitHub tables.

    Args:
        comparison: The comparison.

    Returns:
        The tables of :func:`tables`, and the differences in every language for each reference.
    """
    parts = [f"## {_accuracy_title(comparison)}", grid(*_accuracies(comparison))]
    for reference in comparison.references:
        names = comparison.compared_with(reference)
        every_language = [
            [
                _shown(column),
                *(_cell(comparison.difference[name][reference][column]) for name in names),
            ]
            for column in comparison.columns
        ]
        parts += [
            f"## Difference to {reference}, in points",
            grid(*_differences(comparison, reference)),
            grid(["language", *names], every_language),
            _note(comparison),
        ]
    return "\n\n".join(parts) + "\n"


def write(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `comparison.csv`, `comparison.json` and `comparison.md`; return their paths.

    Accuracies are in [0, 1]. The CSV file has one row for each method and column. The names of its
    columns on a reference start with the name of the reference: `plain/low`.
    """
    as_csv, as_json, as_markdown = (
        folder / f"comparison.{suffix}" for suffix in ("csv", "json", "md")
    )
    rows = [
        {
            "method": name,
            "column": column,
            "seeds": " ".join(map(str, comparison.seeds)),
            "accuracy": comparison.accuracy[name][column].mean,
            "deviation": comparison.accuracy[name][column].deviation,
        }
        | {
            f"{reference}/{'difference' if key == 'mean' else key}": value
            for reference, differences in comparison.difference[name].items()
            for key, value in _record(differences[column]).items()
        }
        for name in comparison.methods
        for column in comparison.columns
    ]
    keys = ("difference", "low", "high", "seed_low", "seed_high", "verdict")
    fields = [f"{reference}/{key}" for reference in comparison.references for key in keys]
    with as_csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, ["method", "column", "seeds", "accuracy", "deviation", *fields], restval=""
        )
        writer.writeheader()
        writer.writerows(rows)

    record = asdict(comparison) | {
        "difference": {
            name: {
                reference: {column: _record(found) for column, found in columns.items()}
                for reference, columns in references.items()
            }
            for name, references in comparison.difference.items()
        }
    }
    as_json.write_text(json_text(record), encoding="utf-8")
    as_markdown.write_text(markdown(comparison), encoding="utf-8")
    return [as_csv, as_json, as_markdown]


def _record(difference: Difference) -> dict[str, Any]:
    return asdict(difference) | {"verdict": difference.verdict}


def _accuracy_title(comparison: Comparison) -> str:
    if len(comparison.seeds) == 1:
        return "Test accuracy in %, one seed"
    return f"Test accuracy in %, mean ± standard deviation over {len(comparison.seeds)} seeds"


def _note(comparison: Comparison) -> str:
    """Explain the differences."""
    what = (
        "Zero-shot: the mean over the languages other than the source. In brackets: 95 % interval "
        "of a paired bootstrap over test items{}; better or worse where {} zero. Each "
        "interval stands for itself, so among many languages some differ by chance. "
    )
    if len(comparison.seeds) == 1:
        return what.format("", "it excludes") + "One seed says nothing of how much seeds vary."
    return what.format(" and seeds", "it and the interval over seeds exclude") + (
        "Over seeds: 95 % t-interval of the differences a seed, for these test items; few seeds "
        "say little of how much seeds vary."
    )


def _accuracies(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the header and one row per method."""
    header = ["method", *(_shown(column) for column in comparison.columns)]
    return header, [
        [name, *(_percent(comparison.accuracy[name][column]) for column in comparison.columns)]
        for name in comparison.methods
    ]


def _differences(comparison: Comparison, reference: str) -> tuple[list[str], list[list[str]]]:
    """Return the header and one row per method: zero-shot mean, languages by verdict."""
    several = len(comparison.seeds) > 1
    rows = []
    for name in comparison.compared_with(reference):
        found = comparison.difference[name][reference]
        mean = found[ZERO_SHOT_MEAN]
        by_verdict = (
            [code for code in comparison.languages if found[code].verdict == verdict]
            for verdict in _VERDICTS
        )
        rows.append(
            [
                name,
                f"{points(mean.mean)} {_interval(mean.low, mean.high)} {mean.verdict}",
                *([_interval(mean.seed_low, mean.seed_high)] if several else []),
                *(" ".join(codes) or "-" for codes in by_verdict),
            ]
        )
    seeds = ["over seeds"] if several else []
    return ["method", "zero-shot", *seeds, *(f"{verdict} in" for verdict in _VERDICTS)], rows


def _view(title: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    view = Table(title=title)
    for name in header:
        view.add_column(name, overflow="fold")
    for row in rows:
        view.add_row(*(escape(cell) for cell in row))
    return view


def grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows of cells as a GitHub table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def _cell(difference: Difference) -> str:
    verdict = "" if difference.verdict == "no clear difference" else f" {difference.verdict}"
    return f"{points(difference.mean)} {_interval(difference.low, difference.high)}{verdict}"


def _shown(column: str) -> str:
    return "zero-shot" if column == ZERO_SHOT_MEAN else column


def _percent(value: Accuracy) -> str:
    deviation = "" if value.deviation is None else f" ± {100 * value.deviation:.1f}"
    return f"{100 * value.mean:.1f}{deviation}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{points(low)}, {points(high)}]"
