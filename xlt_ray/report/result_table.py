"""The table at the end of a search, narrow enough for a terminal. The pipeline prints it.

`tables.leaderboard_table` has every value and language, for `report.html`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from xlt_ray.names import BASELINE, PAPER, ZERO_SHOT_ACCURACY, ZERO_SHOT_MACRO_F1
from xlt_ray.report.tables import leaderboard_title, percent, shows_macro_f1
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.trials import TrialStatus

WIDTH = 120
"""The most columns of a terminal that the table takes, and its width in a file."""
_GAP = 2
"""Spaces between two columns."""


def result_table(
    entries: Sequence[Entry],
    winner: Entry | None,
    objective: str,
    languages: Sequence[str],
    width: int = WIDTH,
) -> Table:
    """Return the result of a search: winner, soups, paper and plain first, then the others by rank.

    Where the languages do not fit, the winner's lowest and highest remain.

    Args:
        entries: The ranked trials.
        winner: The chosen trial; None if no trial finished.
        objective: The dev metric that ranks the trials.
        languages: The language codes; the source language is first.
        width: Columns of the terminal. A narrower one than rank, trial, dev, zero-shot, macro-F1
            (if it differs from accuracy) and source language need gets a table without target
            languages.

    Returns:
        The table, at most `width` wide or without target languages.
    """
    source, *targets = languages
    with_macro_f1 = shows_macro_f1(entries)
    rows = sorted(entries, key=lambda entry: _place(entry, winner))
    cells = [
        [
            str(entry.rank) if entry.rank else _status(entry),
            entry.label,
            percent(entry.objective),
            percent(entry.test.get(ZERO_SHOT_ACCURACY)),
            *([percent(entry.test.get(ZERO_SHOT_MACRO_F1))] if with_macro_f1 else []),
            percent(entry.test.get(f"accuracy/{source}")),
        ]
        for entry in rows
    ]
    header = ["rank", "trial", "dev", "zero-shot", *(["macro-F1"] if with_macro_f1 else []), source]
    taken = sum(max(map(len, column)) + _GAP for column in zip(header, *cells, strict=True)) - _GAP
    accuracies = {
        code: [percent(entry.test.get(f"accuracy/{code}")) for entry in rows] for code in targets
    }
    widths = {
        code: max([len(code), *map(len, column)]) + _GAP for code, column in accuracies.items()
    }
    shown = _fitting(widths, winner, min(width, WIDTH) - taken)
    view = Table(
        title=leaderboard_title(objective, with_macro_f1),
        caption=_left_out(len(targets), len(shown)) if shown != targets else None,
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
    )
    for name in (*header, *shown):
        view.add_column(name, justify="left" if name == "trial" else "right", no_wrap=True)
    for number, (entry, row) in enumerate(zip(rows, cells, strict=True)):
        view.add_row(
            *row,
            *(accuracies[code][number] for code in shown),
            style="bold" if _place(entry, winner) == 0 else "cyan" if entry.trial.baseline else "",
        )
    return view


def _place(entry: Entry, winner: Entry | None) -> int:
    """Return the place of a trial's group; Python's sort keeps the ranks inside a group."""
    if winner is not None and entry.label == winner.label:
        return 0
    if entry.trial.soup:
        return 1
    return {PAPER: 2, BASELINE: 3}.get(entry.label, 4)


def _status(entry: Entry) -> str:
    return "" if entry.status == TrialStatus.FINISHED else str(entry.status)


def _fitting(widths: Mapping[str, int], winner: Entry | None, room: int) -> list[str]:
    """Return all target languages if they fit, else the winner's lowest, then its highest.

    Args:
        widths: Columns of the terminal that each target language takes.
        winner: The chosen trial; None: the first and last languages remain.
        room: Columns of the terminal that are left for them.
    """
    ordered = list(widths)
    if sum(widths.values()) <= room:
        return ordered
    if winner is not None:
        ordered.sort(key=lambda code: winner.test.get(f"accuracy/{code}", 0.0))
    low: list[str] = []
    high: list[str] = []
    while ordered:
        side, place = (low, 0) if len(low) <= len(high) else (high, -1)
        room -= widths[ordered[place]]
        if room < 0:
            break
        side.append(ordered.pop(place))
    return low + high[::-1]


def _left_out(targets: int, shown: int) -> str:
    kept = (
        f"; shown are the winner's {(shown + 1) // 2} lowest and {shown // 2} highest"
        if shown
        else ""
    )
    return (
        f"{targets - shown} of {targets} target languages are left out{kept}. "
        "leaderboard.csv and report.html have all."
    )
