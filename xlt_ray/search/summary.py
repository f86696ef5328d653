"""A search in words: its verdict, its facts, the commands to go on with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.plan import SearchOutline
from xlt_ray.search.trials import LABELS

_SIGNS = {"method.push_margin": "m", "method.pull_weight": "β", "method.view.radius": "r"}
"""As the paper writes them; other keys go by their last name."""
ZERO_SHOT_ACCURACY = "accuracy/zero_shot_mean"


def shown(value: Any) -> str:
    """A value as names and tables show it."""
    return "none" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def short_values(values: Mapping[str, Any]) -> str:
    """Return a trial's values in short: `push_margin=0.4 radius=0.6`."""
    return " ".join(f"{key.rpartition('.')[2]}={shown(value)}" for key, value in values.items())


def signs(values: Mapping[str, Any]) -> str:
    """Values of searched keys in still fewer: `m=0.4 β=12 r=0.6`."""
    return " ".join(
        f"{_SIGNS.get(key, key.rpartition('.')[2])}={shown(value)}" for key, value in values.items()
    )


def verdict(entries: Sequence[Entry]) -> str | None:
    """A sentence on the best trial against plain fine-tuning; None where one is lacking."""
    winner, plain = leaderboard.best(entries), leaderboard.baseline(entries)
    if winner is None or plain is None:
        return None
    gain = 100 * (winner.test[ZERO_SHOT_ACCURACY] - plain.test[ZERO_SHOT_ACCURACY])
    return (
        f"Best: {winner.label}, zero-shot mean {100 * winner.test[ZERO_SHOT_ACCURACY]:.1f} %, "
        f"{gain:+.1f} points against plain fine-tuning "
        f"({100 * plain.test[ZERO_SHOT_ACCURACY]:.1f} %); one seed each."
    )


def commands(folder: Path, found: bool) -> dict[str, str]:
    """How to run the best configuration again, where one was found, and how to go on.

    Args:
        folder: The search's folder, as a person would type it.
        found: Whether there is a best configuration.

    Returns:
        Commands by what they do.
    """
    rerun = {"Re-run the best": f"python launch.py --search {folder / 'best.yaml'}"}
    return (rerun if found else {}) | {"Go on": f"python launch.py --resume {folder}"}


def facts(
    plan: SearchOutline, folder: Path, entries: Sequence[Entry] | None = None
) -> dict[str, str]:
    """What a search is and what came of it.

    Args:
        plan: The search.
        folder: Its folder, as a person would type it.
        entries: The ranked trials, at its end; None: it has only begun.

    Returns:
        Texts by what they tell, such as `Task`; names and commands are in backquotes.
    """
    spec, task = plan.spec, plan.task
    searched = ", ".join(f"`{key}`" for key in spec.search.parameters)
    beside = ", ".join(f"`{LABELS[name]}`" for name in plan.baselines)
    objective = spec.search.objective
    uses = ", of target-language dev labels" if objective.endswith("/zero_shot_mean") else ""
    told = {
        "Task": f"{task.name}, {task.source_language} → {' '.join(task.target_languages)}",
        "Model": spec.model,
        "Method": f"`{spec.method.name}`"
        + (f", searched: {searched}" if searched else "")
        + (f"; beside it: {beside}" if beside else ""),
        "Selected by": f"`{objective}`{uses}; test data selects nothing",
    }
    if entries is None:
        told["Trials"] = f"{plan.trials}, under way"
    else:
        counted = Counter(entry.status for entry in entries)
        told["Trials"] = f"{len(entries)} of {plan.trials}" + "".join(
            f", {count} {status}" for status, count in counted.items()
        )
        for what, entry in (
            ("Best", leaderboard.best(entries)),
            ("Baseline", leaderboard.baseline(entries)),
        ):
            if entry is not None:
                values = short_values(entry.values) if entry.trial.proposed else ""
                told[what] = (
                    f"{entry.label}{f', `{values}`' if values else ''}, "
                    f"zero-shot mean {100 * entry.test[ZERO_SHOT_ACCURACY]:.1f} %"
                )
    found = entries is not None and leaderboard.best(entries) is not None
    return told | {what: f"`{command}`" for what, command in commands(folder, found).items()}
