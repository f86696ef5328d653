"""The result of a study: each method's accuracy over seeds, and how sure the differences are."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from xlt_ray.evaluation.intervals import (
    Accuracy,
    Correct,
    Difference,
    Verdict,
    accuracy,
    paired_difference,
)

REFERENCES = ("plain", "rs-da")
"""Methods that the others are compared with."""
ZERO_SHOT = "zero_shot_mean"
"""The column of the mean over the languages other than the source."""

_VERDICTS: tuple[Verdict, ...] = ("better", "worse", "no clear difference")


@dataclass(frozen=True)
class Comparison:
    """Methods, each fine-tuned with the same seeds and scored on the same test items.

    A column is a language's code, or :data:`ZERO_SHOT`.
    """

    seeds: tuple[int, ...]
    """Of the runs."""
    source: str
    """Code of the source language, which is not part of the zero-shot mean."""
    languages: tuple[str, ...]
    """Codes, the source first."""
    methods: tuple[str, ...]
    """Names, in the order in which they are shown."""
    accuracy: Mapping[str, Mapping[str, Accuracy]]
    """Method to column to accuracy."""
    difference: Mapping[str, Mapping[str, Mapping[str, Difference]]]
    """Method to reference to column to the method's accuracy minus the reference's. The references
    are those of :data:`REFERENCES` that are among the methods; none is compared with itself."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The zero-shot mean, then the languages."""
        return (ZERO_SHOT, *self.languages)

    @property
    def references(self) -> tuple[str, ...]:
        """The methods that others are compared with."""
        return tuple(name for name in REFERENCES if name in self.methods and len(self.methods) > 1)

    def compared_with(self, reference: str) -> list[str]:
        """The methods that have differences to a reference: all but itself."""
        return [name for name in self.methods if name != reference]


def compare(
    correct: Mapping[str, Correct], seeds: Sequence[int], languages: Sequence[str], source: str
) -> Comparison:
    """Compare methods by what they got right on the test items.

    Args:
        correct: Method name to language code to bool (seeds, items); seeds and items are the
            same, in the same order, for every method.
        seeds: The runs' seeds, in that order.
        languages: Codes of the languages, the source among them.
        source: Code of the source language.

    Raises:
        ValueError: If the source or another language is missing, there is no method, no target
            language, or the arrays' shapes differ between methods or do not fit the seeds.
    """
    if not correct:
        raise ValueError("no method to compare")
    if source not in languages:
        raise ValueError(f"the source language {source} is not among {', '.join(languages)}")
    targets = tuple(code for code in languages if code != source)
    if not targets:
        raise ValueError(f"no language other than the source language {source}")
    columns = {ZERO_SHOT: targets} | {code: (code,) for code in (source, *targets)}
    first = next(iter(correct))
    for name, arrays in correct.items():
        for code in (source, *targets):
            if code not in arrays:
                raise ValueError(f"{name} has no predictions in {code}")
            shape, expected = arrays[code].shape, correct[first][code].shape
            if shape[:1] != (len(seeds),) or shape != expected:
                raise ValueError(
                    f"{name}, {code}: predictions of shape {shape}; it must be (seeds, items) "
                    f"with {len(seeds)} seeds, and the same for every method"
                )

    accuracies = {
        name: {column: accuracy(arrays, codes) for column, codes in columns.items()}
        for name, arrays in correct.items()
    }
    differences = {
        name: {
            reference: {
                column: paired_difference(arrays, correct[reference], codes)
                for column, codes in columns.items()
            }
            for reference in REFERENCES
            if reference in correct and reference != name
        }
        for name, arrays in correct.items()
    }
    return Comparison(
        tuple(seeds), source, (source, *targets), tuple(correct), accuracies, differences
    )


def tables(comparison: Comparison) -> list[Table]:
    """Lay a comparison out for a terminal.

    Returns:
        A table of accuracies in %, and for each reference one of differences in points: those of
        the zero-shot mean with their intervals, and which languages are better and worse.
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
    """Write a comparison as GitHub tables.

    Returns:
        What :func:`tables` shows, and for each reference the differences in every language.
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

    Accuracies are in [0, 1]. The CSV file has a row for each method and column; its columns of a
    reference begin with the reference's name, such as `plain/low`.
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
    as_json.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    as_markdown.write_text(markdown(comparison), encoding="utf-8")
    return [as_csv, as_json, as_markdown]


def _record(difference: Difference) -> dict[str, Any]:
    return asdict(difference) | {"verdict": difference.verdict}


def _accuracy_title(comparison: Comparison) -> str:
    if len(comparison.seeds) == 1:
        return "Test accuracy in %, one seed"
    return f"Test accuracy in %, mean ± standard deviation over {len(comparison.seeds)} seeds"


def _note(comparison: Comparison) -> str:
    """How to read the differences."""
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
    """Header and rows, a method each."""
    header = ["method", *(_shown(column) for column in comparison.columns)]
    return header, [
        [name, *(_percent(comparison.accuracy[name][column]) for column in comparison.columns)]
        for name in comparison.methods
    ]


def _differences(comparison: Comparison, reference: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows, a method each: the zero-shot mean, and languages by verdict."""
    several = len(comparison.seeds) > 1
    rows = []
    for name in comparison.compared_with(reference):
        found = comparison.difference[name][reference]
        mean = found[ZERO_SHOT]
        by_verdict = (
            [code for code in comparison.languages if found[code].verdict == verdict]
            for verdict in _VERDICTS
        )
        rows.append(
            [
                name,
                f"{_points(mean.mean)} {_interval(mean.low, mean.high)} {mean.verdict}",
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
    """Lay rows of cells out as a GitHub table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def _cell(difference: Difference) -> str:
    told = "" if difference.verdict == "no clear difference" else f" {difference.verdict}"
    return f"{_points(difference.mean)} {_interval(difference.low, difference.high)}{told}"


def _shown(column: str) -> str:
    return "zero-shot" if column == ZERO_SHOT else column


def _percent(value: Accuracy) -> str:
    deviation = "" if value.deviation is None else f" ± {100 * value.deviation:.1f}"
    return f"{100 * value.mean:.1f}{deviation}"


def _points(value: float) -> str:
    return f"{100 * value:+z.1f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{_points(low)}, {_points(high)}]"
