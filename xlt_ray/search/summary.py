"""A search in words: its facts and its next commands, for the terminal, the report and MLflow."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xlt_ray.evaluation.scores import target_data
from xlt_ray.names import ZERO_SHOT_ACCURACY
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.plan import SearchOutline
from xlt_ray.search.trials import LABELS
from xlt_ray.search.verdict import Verdict

_SIGNS = {"method.push_margin": "m", "method.pull_weight": "β", "method.view.radius": "r"}
"""Symbols of the paper; any other key appears by its last part."""


def shown(value: Any) -> str:
    """Return a value as run names and tables show it."""
    return "none" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def short_values(values: Mapping[str, Any]) -> str:
    """Return a trial's values in short: `push_margin=0.4 radius=0.6`."""
    return " ".join(f"{key.rpartition('.')[2]}={shown(value)}" for key, value in values.items())


def signs(values: Mapping[str, Any]) -> str:
    """Return values in the paper's symbols: `m=0.4 β=12 r=0.6`."""
    return " ".join(
        f"{_SIGNS.get(key, key.rpartition('.')[2])}={shown(value)}" for key, value in values.items()
    )


def search_command(*arguments: str) -> str:
    """Return the shell command that starts `search` with these arguments in the working folder.

    In a checkout of the project it is `python launch.py`, elsewhere the installed `xlt-ray`.
    """
    checkout = Path("launch.py").is_file() and Path("xlt_ray", "cli").is_dir()
    program = ("python", "launch.py") if checkout else ("xlt-ray", "search")
    return shlex.join([*program, *arguments])


def commands(folder: Path, found: bool) -> dict[str, str]:
    """Return the commands that run the best configuration again and that resume the search.

    Args:
        folder: The search's folder, as a user types it.
        found: Whether there is a best configuration.

    Returns:
        Commands by their purpose.
    """
    rerun = {"Re-run the best": search_command("--search", str(folder / "best.yaml"))}
    return (rerun if found else {}) | {"Go on": search_command("--resume", str(folder))}


def facts(
    plan: SearchOutline,
    folder: Path,
    entries: Sequence[Entry] | None = None,
    verdict: Verdict | None = None,
) -> dict[str, str]:
    """Return the facts of a search and of its result.

    Args:
        plan: The search.
        folder: The search's folder, as a user types it.
        entries: The ranked trials; None: the search has just started.
        verdict: The verdict, which names the chosen trial; None: the first-ranked one.

    Returns:
        Texts by their heading, such as `Task`; names and commands are in backquotes.
    """
    spec, task = plan.spec, plan.task
    searched = ", ".join(f"`{key}`" for key in spec.search.parameters)
    baselines = ", ".join(f"`{LABELS[name]}`" for name in plan.baselines)
    objective = spec.search.objective
    uses = f", with {read}" if (read := target_data(objective)) else ""
    lines = {
        "Task": f"{task.name}, {task.source_language} → {' '.join(task.target_languages)}",
        "Model": spec.model,
        "Method": " or ".join(f"`{name}`" for name in spec.method_names())
        + (f", searched: {searched}" if searched else "")
        + (f"; baselines: {baselines}" if baselines else ""),
        "Selected by": f"`{objective}`{uses}; test scores are never used for selection",
    }
    if entries is None:
        lines["Trials"] = f"{plan.trials}, running"
    else:
        counted = Counter(entry.status for entry in entries if not entry.trial.soup)
        lines["Trials"] = f"{counted.total()} of {plan.trials}" + "".join(
            f", {count} {status}" for status, count in counted.items()
        )
        if soups := sum(entry.trial.soup for entry in entries):
            lines["Trials"] += f"; {soups} soup{'s' * (soups > 1)}"
        best, plain = leaderboard.best(entries), leaderboard.baseline(entries)
        if verdict is not None:
            # A verdict of an earlier ranking may name a trial that is not there any more.
            best = next((entry for entry in entries if entry.label == verdict.winner), best)
        for what, entry in (("Best", best), ("Baseline", plain if plain is not best else None)):
            if entry is not None:
                values = short_values(entry.values) if entry.trial.proposed else ""
                if entry.members:
                    values = " ".join(entry.members)
                lines[what] = (
                    f"{entry.label}{f', `{values}`' if values else ''}, "
                    f"zero-shot mean {100 * entry.test[ZERO_SHOT_ACCURACY]:.1f} %"
                )
    found = entries is not None and leaderboard.best(entries) is not None
    return lines | {what: f"`{command}`" for what, command in commands(folder, found).items()}
