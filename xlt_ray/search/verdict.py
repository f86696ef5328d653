"""The verdict of a search: its winner against plain fine-tuning, as values and as a sentence.

The pipeline makes it once; terminal, report, MLflow and model card show its sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xlt_ray.evaluation.intervals import (
    Correct,
    Difference,
    OtherTexts,
    accuracy,
    paired_difference,
    points,
)
from xlt_ray.evaluation.saved_predictions import correct_of
from xlt_ray.files import json_text
from xlt_ray.names import BASELINE, VERDICT, ZERO_SHOT_ACCURACY
from xlt_ray.search import leaderboard
from xlt_ray.search.confirmation import Choice
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.trials import seed_label

_PLAIN = "plain fine-tuning"


@dataclass(frozen=True)
class Verdict:
    """The winner of a search and its difference to plain fine-tuning on test data."""

    winner: str
    """Label of the chosen trial: a configuration, a baseline or a soup."""
    plain: str | None
    """Label of plain fine-tuning; None if it did not finish."""
    difference: Difference | None
    """Test zero-shot mean of the winner minus that of plain fine-tuning, as shares. None if one of
    them has no predictions, or if both are the same trial."""
    sentence: str
    """All of it in words."""

    def write(self, folder: Path) -> Path:
        """Write `verdict.json` into a folder; return its path."""
        path = folder / VERDICT
        path.write_text(json_text(asdict(self)), "utf-8")
        return path

    @classmethod
    def read(cls, file: Path) -> Verdict:
        """Read what :meth:`write` wrote.

        Raises:
            OSError: If there is no such file.
            ValueError: If it is not JSON.
        """
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        difference = record.pop("difference")
        return cls(difference=difference and Difference(**difference), **record)


def search_verdict(
    entries: Sequence[Entry],
    folder: Path,
    languages: Sequence[str],
    choice: Choice | None = None,
    seeds: Sequence[int] = (),
) -> Verdict | None:
    """Return the verdict of a search whose test predictions are in its folder.

    Args:
        entries: The ranked trials.
        folder: The search's folder; `predictions/` may lack trials.
        languages: Codes of the target languages.
        choice: The winner of a confirmation; None: the first-ranked trial wins.
        seeds: The seeds of the confirmation.

    Returns:
        The verdict over one run of each trial, or with a confirmation over its runs; None if no
        trial finished.
    """
    winner, plain = winner_of(entries, choice), leaderboard.baseline(entries)
    correct = {}
    try:
        for label in {entry.label for entry in (winner, plain) if entry is not None}:
            runs = [seed_label(label, seed) for seed in seeds] if choice is not None else [label]
            files = [folder / "predictions" / f"{run}.npz" for run in runs]
            if all(file.exists() for file in files):
                correct[label] = correct_of(files)
        return verdict(entries, correct, languages, choice)
    except OtherTexts:
        # A resumed search was forced onto another test set.
        return verdict(entries, {}, languages, choice)


def winner_of(entries: Sequence[Entry], choice: Choice | None) -> Entry | None:
    """Return the winner of a search: a configuration, a baseline or a soup.

    Args:
        entries: The ranked trials.
        choice: The winner of a confirmation; None: the first-ranked trial wins.

    Returns:
        The winner; None if no trial finished.
    """
    if choice is None:
        return leaderboard.best(entries)
    return next(entry for entry in entries if entry.label == choice.winner.label)


def verdict(
    entries: Sequence[Entry],
    correct: Mapping[str, Correct],
    languages: Sequence[str],
    choice: Choice | None = None,
) -> Verdict | None:
    """Compare the winner of a search with plain fine-tuning on test data.

    The comparison is :func:`xlt_ray.evaluation.intervals.paired_difference`: with one seed, a
    paired bootstrap over test items.

    Args:
        entries: The ranked trials.
        correct: What the winner and plain fine-tuning got right, by label: bool (seeds, items) by
            language. Both have the same seeds and items. A label may be missing.
        languages: Codes of the target languages.
        choice: The winner of a confirmation; None: the first-ranked trial wins.

    Returns:
        The verdict; None if no trial finished.

    Raises:
        OtherTexts: If predictions lack a language, or the two differ in seeds or items.
    """
    winner, plain = winner_of(entries, choice), leaderboard.baseline(entries)
    if winner is None:
        return None
    if plain is None:
        sentence = (
            f"{_chosen(winner, choice)}. There is no finished run of {_PLAIN} to compare it with. "
            f"{_seeds(choice)}"
        )
        return Verdict(winner.label, None, None, sentence)
    if winner is plain:
        return Verdict(winner.label, plain.label, None, _plain_won(plain, entries, choice))
    try:
        ours, theirs = correct[winner.label], correct[plain.label]
    except KeyError:
        sentence = _without_interval(winner, plain, choice)
        return Verdict(winner.label, plain.label, None, sentence)
    difference = paired_difference(ours, theirs, languages)
    means = accuracy(ours, languages).mean, accuracy(theirs, languages).mean
    seeds = len(ours[languages[0]])
    sentence = _compared(winner, *means, difference, seeds) + _tie(choice)
    return Verdict(winner.label, plain.label, difference, sentence)


def _tie(choice: Choice | None) -> str:
    """Return what to add if the winner is simpler than the best candidate."""
    if choice is None or not choice.tied:
        return ""
    return (
        f" {choice.best.label} scored higher on dev data, but by less than the noise between seeds,"
        " so the simpler candidate was chosen."
    )


def _chosen(winner: Entry, choice: Choice | None) -> str:
    """Return how the sentence begins: the winner and its test score."""
    name = _PLAIN if winner.label == BASELINE else winner.label
    mean = winner.test[ZERO_SHOT_ACCURACY]
    if choice is not None:
        mean = float(choice.winner.zero_shot.mean())
    return f"Chosen on dev data: {name}, test zero-shot mean {_percent(mean)}"


def _seeds(choice: Choice | None) -> str:
    """Return the end of a sentence without interval: how many seeds it is about."""
    if choice is None:
        return "One seed; other seeds may differ."
    seeds = len(choice.winner.zero_shot)
    return f"{seeds} fresh seed{'' if seeds == 1 else 's'}."


def _plain_won(plain: Entry, entries: Sequence[Entry], choice: Choice | None) -> str:
    outcome = f"on this task and data, and {_PLAIN} is the model that you get."
    if choice is not None and choice.tied:
        meaning = (
            f"{choice.best.label} scored higher on dev data, but by less than the noise between"
            f" seeds: nothing that was searched clearly paid {outcome}"
        )
    elif any(entry.rank and entry.label != BASELINE for entry in entries):
        meaning = (
            f"No configuration scored higher on dev data: nothing that was searched paid {outcome}"
        )
    else:
        meaning = "No other trial finished."
    return f"{_chosen(plain, choice)}. {meaning} {_seeds(choice)}"


def _without_interval(winner: Entry, plain: Entry, choice: Choice | None) -> str:
    difference = ""
    if choice is None:
        ours, theirs = winner.test[ZERO_SHOT_ACCURACY], plain.test[ZERO_SHOT_ACCURACY]
        difference = f", {points(ours - theirs)} points against {_PLAIN} ({_percent(theirs)})"
    return (
        f"{_chosen(winner, choice)}{difference}. There is no interval, because the two have no "
        f"test predictions for the same texts. {_seeds(choice)}"
    )


def _compared(winner: Entry, ours: float, theirs: float, difference: Difference, seeds: int) -> str:
    found = difference.verdict
    claim = f"{found} to" if found == "no clear difference" else f"{found} than"
    covers = (
        "One seed: the interval covers test items only; other seeds may differ."
        if seeds == 1
        else f"{seeds} seeds: the interval covers test items and seeds."
    )
    return (
        f"Chosen on dev data: {winner.label}, test zero-shot mean {_percent(ours)}, {claim} "
        f"{_PLAIN} ({_percent(theirs)}): {points(difference.mean)} points, 95 % interval "
        f"[{points(difference.low)}, {points(difference.high)}]. {covers}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
