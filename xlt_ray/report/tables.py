"""Tables of a search for the terminal and for `report.html`. Pipeline and report call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from xlt_ray.names import ZERO_SHOT_ACCURACY, ZERO_SHOT_MACRO_F1
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.summary import shown as shown_value
from xlt_ray.search.trials import TrialStatus

_NOTABLE = 0.01
"""A difference between macro-F1 and accuracy from which tables show both."""


def shows_macro_f1(entries: Sequence[Entry]) -> bool:
    """Return whether macro-F1 says something that accuracy does not.

    That is so if the zero-shot means of the two differ by a point or more for some trial, because
    classes are skewed or some are missed.
    """
    return any(
        abs(entry.test[ZERO_SHOT_MACRO_F1] - entry.test[ZERO_SHOT_ACCURACY]) >= _NOTABLE
        for entry in entries
        if {ZERO_SHOT_MACRO_F1, ZERO_SHOT_ACCURACY} <= entry.test.keys()
    )


def leaderboard_title(objective: str, with_macro_f1: bool) -> str:
    """Return the title of a table of trials."""
    f1 = "; macro-F1 is the target languages' mean" if with_macro_f1 else ""
    return f"Ranked by {objective}; the other figures are test accuracies, in %{f1}"


def leaderboard_table(
    entries: Sequence[Entry],
    objective: str,
    searched: Sequence[str],
    languages: Sequence[str],
    winner: str | None = None,
) -> Table:
    """Return the leaderboard, with accuracies in %.

    Args:
        entries: The ranked trials.
        objective: The dev metric that ranks them.
        searched: The searched keys, one column each.
        languages: The language codes, one column each; the source language is first.
        winner: Label of the chosen trial, in bold; None: nothing was chosen.
    """
    with_macro_f1 = shows_macro_f1(entries)
    view = Table(title=leaderboard_title(objective, with_macro_f1))
    view.add_column("rank", justify="right")
    view.add_column("trial")
    for key in searched:
        view.add_column(key.rpartition(".")[2], justify="right")
    view.add_column("dev", justify="right")
    view.add_column("zero-shot", justify="right")
    if with_macro_f1:
        view.add_column("macro-F1", justify="right")
    for code in languages:
        view.add_column(code, justify="right")
    for entry in entries:
        shown = entry.status if entry.status != TrialStatus.FINISHED else ""
        view.add_row(
            str(entry.rank) if entry.rank else shown,
            entry.label,
            *(_value(entry, key) for key in searched),
            percent(entry.objective),
            percent(entry.test.get(ZERO_SHOT_ACCURACY)),
            *([percent(entry.test.get(ZERO_SHOT_MACRO_F1))] if with_macro_f1 else []),
            *(percent(entry.test.get(f"accuracy/{code}")) for code in languages),
            style="bold" if entry.label == winner else "cyan" if entry.trial.baseline else "",
        )
    return view


def _value(entry: Entry, key: str) -> str:
    if key not in entry.values:
        return "-" if entry.trial.baseline or entry.trial.soup else "fixed"
    return shown_value(entry.values[key])


def percent(value: float | None) -> str:
    """Return a share in %, with one decimal; empty for None."""
    return "" if value is None else f"{100 * value:.1f}"


def alignment_table(found: Mapping[str, Mapping[str, float]], languages: Sequence[str]) -> Table:
    """Return the table of translation retrieval accuracies in % and mean cosine margins.

    Args:
        found: The alignment metrics by model name; a model without metrics has no row.
        languages: The target language codes, one column each.
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


def correlation_table(correlations: Mapping[str, tuple[float, float]], runs: int) -> Table:
    """Return the table of rank correlations with the test zero-shot mean.

    Args:
        correlations: Spearman's coefficient in [-1, 1] and its p-value, by dev objective.
        runs: The number of trials that they are computed over.
    """
    view = Table(
        title=f"Rank correlation of dev objectives with the test zero-shot mean, {runs} runs"
    )
    for column in ("objective", "Spearman", "p"):
        view.add_column(column, justify="left" if column == "objective" else "right")
    for name, (coefficient, p_value) in correlations.items():
        view.add_row(name, f"{coefficient:+.2f}", f"{p_value:.3f}")
    return view


def print_whole(view: Table, console: Console) -> None:
    """Print a table at its full width, because a narrow pipe would cut the numbers."""
    wide = Console(width=1000)
    width = max(console.width, wide.measure(view).maximum)
    Console(file=console.file, width=width, quiet=console.quiet).print(view)
