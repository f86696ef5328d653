"""Tables for the terminal and for report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from xlt_ray.search.leaderboard import Entry


def table(
    entries: Sequence[Entry], objective: str, searched: Sequence[str], languages: Sequence[str]
) -> Table:
    """Lay the leaderboard out for a terminal; accuracies in percent.

    Args:
        entries: Ranked trials.
        objective: Name of the dev metric that ranks.
        searched: Searched keys, a column each.
        languages: Language codes, the source first; a column each.
    """
    view = Table(title=f"Ranked by {objective}; the other figures are test accuracies, in %")
    view.add_column("rank", justify="right")
    view.add_column("trial")
    for key in searched:
        view.add_column(key.rpartition(".")[2], justify="right")
    view.add_column("dev", justify="right")
    view.add_column("zero-shot", justify="right")
    for code in languages:
        view.add_column(code, justify="right")
    for entry in entries:
        shown = entry.status if entry.status != "finished" else ""
        view.add_row(
            str(entry.rank) if entry.rank else shown or "baseline",
            entry.label,
            *(_value(entry, key) for key in searched),
            _percent(entry.objective),
            _percent(entry.test.get("accuracy/zero_shot_mean")),
            *(_percent(entry.test.get(f"accuracy/{code}")) for code in languages),
            style="bold" if entry.rank == 1 else "cyan" if entry.trial.baseline else "",
        )
    return view


def _value(entry: Entry, key: str) -> str:
    if key not in entry.values:
        return "-" if entry.trial.baseline else "fixed"
    value = entry.values[key]
    return "none" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def alignment_table(found: Mapping[str, Mapping[str, float]], languages: Sequence[str]) -> Table:
    """Lay out translation retrieval accuracy in %, and mean cosine margins.

    Args:
        found: Model name to alignment metrics.
        languages: Target language codes, a column each.
    """
    view = Table(
        title="Translation retrieval accuracy@1 of the last layer, in %",
        caption="How often a text's nearest neighbour in the other language is its translation, "
        "to and from the source language: 100 is always, chance is 100 / rows. Margin: mean cosine "
        "of translations minus that of other pairs. Embedding, pulled layer: the mean of retrieval "
        "measured there.",
    )
    view.add_column("model")
    for column in ("mean", "margin", "embedding", "pulled layer", *languages):
        view.add_column(column, justify="right")
    for name, metrics in found.items():
        if not metrics:
            continue
        view.add_row(
            name,
            f"{100 * metrics['alignment/retrieval/mean']:.1f}",
            f"{metrics['alignment/margin/mean']:.3f}",
            f"{100 * metrics['alignment/embedding/retrieval/mean']:.1f}",
            f"{100 * metrics['alignment/pulled/retrieval/mean']:.1f}",
            *(f"{100 * metrics[f'alignment/retrieval/{code}']:.1f}" for code in languages),
        )
    return view


def print_whole(view: Any, console: Console) -> None:
    """Print a table at its full width: folded into a narrow pipe, figures would be cut."""
    wide = Console(width=1000)
    width = max(console.width, wide.measure(view).maximum)
    Console(file=console.file, width=width, quiet=console.quiet).print(view)
