"""Scores of a trained model as tables for the terminal. `xlt-ray evaluate` calls it."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from xlt_ray.inference.scoring import Scores
from xlt_ray.report.tables import print_whole


def show(scores: Scores, console: Console) -> None:
    """Print the scores as tables, in %.

    Args:
        scores: The scores.
        console: Shows them.
    """
    view = Table(title=f"Scores on {scores.task}, {scores.split}, in %")
    columns = ["language", "accuracy", "95 % interval", "macro-F1", "calibration error", "texts"]
    if scores.alignment is not None:
        columns += ["retrieval", "margin"]
    for name in columns:
        view.add_column(name, justify="left" if name == "language" else "right")
    for code, found in scores.languages.items():
        view.add_row(
            code + (" (trained on)" if code == scores.source else ""),
            f"{100 * found.accuracy:.1f}",
            escape(f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"),
            f"{100 * found.macro_f1:.1f}",
            f"{100 * found.calibration_error:.1f}",
            str(found.examples),
            *_aligned(scores, code),
        )
    if scores.zero_shot_mean is not None and scores.zero_shot_macro_f1 is not None:
        view.add_section()
        mean, f1 = f"{100 * scores.zero_shot_mean:.1f}", f"{100 * scores.zero_shot_macro_f1:.1f}"
        view.add_row("zero-shot mean", mean, "", f1, "", "", *_aligned(scores, "mean"))
    print_whole(view, console)
    console.print(
        "Macro-F1: the mean over the classes, so that a rare class counts as much as a frequent "
        "one. Calibration error: how far the model's confidence is from its accuracy.",
        soft_wrap=True,
        highlight=False,
    )
    if scores.alignment is not None:
        console.print(
            "Retrieval: how often the nearest text in the other language is the translation, in %. "
            "Margin: how much nearer translations are than other pairs, as cosines.",
            soft_wrap=True,
            highlight=False,
        )
    if scores.matrix is None:
        return
    pairs = Table(title="Accuracy by language of the premise (row) and the hypothesis, in %")
    pairs.add_column("premise")
    for code in scores.languages:
        pairs.add_column(code, justify="right")
    for code, row in zip(scores.languages, scores.matrix, strict=True):
        pairs.add_row(code, *(f"{100 * value:.1f}" for value in row))
    print_whole(pairs, console)


def _aligned(scores: Scores, code: str) -> list[str]:
    """Return the alignment cells of a language; those of the source language are empty."""
    if scores.alignment is None:
        return []
    if code == scores.source:
        return ["", ""]
    return [
        f"{100 * scores.alignment[f'retrieval/{code}']:.1f}",
        f"{scores.alignment[f'margin/{code}']:.3f}",
    ]
