"""The names and descriptions of a search's runs: what MLflow's tables and pages say at a glance."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xlt_ray.cluster.trial import trial_spec, trial_values
from xlt_ray.config.spec import OBJECTIVE, SearchSpec
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.ledger import Record
from xlt_ray.search.plan import LABELS, Outline

NOTE_TAG = "mlflow.note.content"
"""The tag that MLflow shows as a run's description, in Markdown."""
VIEW = "results"
"""Name of the view of a search's runs that :func:`results_view` is."""
# Undocumented: where "Save view" of MLflow 3's pages keeps one. Others leave it unread.
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""Tag of the experiment that is that view."""

_SIGNS = {"method.push_margin": "m", "method.pull_weight": "β", "method.view.radius": "r"}
"""As the paper writes them; other keys go by their last name."""
_MOST_LANGUAGES = 40
"""Columns of a view; MLflow's tags hold 5,000 characters."""
_ZERO_SHOT = "accuracy/zero_shot_mean"
HEADLINE = "score/test_zero_shot"
"""Metric of a trial that is its test zero-shot mean once more: MLflow orders the columns of a view
by their names, and by this one it stands before those of the languages."""


def shown(value: Any) -> str:
    """A value as names and tables show it."""
    return "none" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def short_values(config: Mapping[str, Any]) -> str:
    """A configuration in a few words: the last names of its keys and their values."""
    values = trial_values(config)
    return " ".join(f"{key.rpartition('.')[2]}={shown(value)}" for key, value in values.items())


def signs(values: Mapping[str, Any]) -> str:
    """Values of searched keys in still fewer: `m=0.4 β=12 r=0.6`."""
    return " ".join(
        f"{_SIGNS.get(key, key.rpartition('.')[2])}={shown(value)}" for key, value in values.items()
    )


def run_name(spec: SearchSpec, config: Mapping[str, Any]) -> str:
    """The name of a trial's run: its label and, of a proposal, the method and its values.

    Args:
        spec: The search.
        config: The trial's label and values.

    Returns:
        A name such as `07 ear m=0.4 β=12 r=0.6`.
    """
    label = str(config["label"])
    if not label.isdigit():
        return label  # Of the methods that are run for comparison the name says all.
    values = trial_values(config)
    method = values.pop("method.name", spec.method.name)
    return " ".join(filter(None, (label, method, signs(values))))


def trial_note(spec: SearchSpec, record: Record) -> str:
    """The description of a trial's run, a line of Markdown.

    Args:
        spec: The search.
        record: What the trial did so far.
    """
    method = trial_spec(spec, record.config).method.name
    values = {key: value for key, value in record.config.items() if key != "method.name"}
    told = short_values(values) if str(values["label"]).isdigit() else ""
    text = f"`{method}`" + (f" with `{told}`" if told else "")
    if record.status == "running":
        return text
    text += f"; {'stopped early' if record.status == 'pruned' else record.status}"
    if record.status == "failed":
        return f"{text}: {record.reason}"
    metrics = record.metrics
    if OBJECTIVE in metrics:
        text += f", {spec.search.objective} {100 * metrics[OBJECTIVE]:.1f} %"
    if f"test/{_ZERO_SHOT}" in metrics:
        text += f", test zero-shot mean {100 * metrics[f'test/{_ZERO_SHOT}']:.1f} %"
    return text


def verdict(entries: Sequence[Entry]) -> str | None:
    """A sentence on the best trial against plain fine-tuning; None where one is lacking."""
    winner, plain = leaderboard.best(entries), leaderboard.baseline(entries)
    if winner is None or plain is None:
        return None
    gain = 100 * (winner.test[_ZERO_SHOT] - plain.test[_ZERO_SHOT])
    return (
        f"Best: {winner.label}, zero-shot mean {100 * winner.test[_ZERO_SHOT]:.1f} %, "
        f"{gain:+.1f} points against plain fine-tuning "
        f"({100 * plain.test[_ZERO_SHOT]:.1f} %); one seed each."
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


def facts(plan: Outline, folder: Path, entries: Sequence[Entry] | None = None) -> dict[str, str]:
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
                values = short_values(entry.values) if entry.label.isdigit() else ""
                told[what] = (
                    f"{entry.label}{f', `{values}`' if values else ''}, "
                    f"zero-shot mean {100 * entry.test[_ZERO_SHOT]:.1f} %"
                )
    found = entries is not None and leaderboard.best(entries) is not None
    return told | {what: f"`{command}`" for what, command in commands(folder, found).items()}


def search_note(plan: Outline, folder: Path, entries: Sequence[Entry] | None = None) -> str:
    """The description of a search's run, in Markdown; arguments as of :func:`facts`."""
    lines = [f"- **{what}**: {text}" for what, text in facts(plan, folder, entries).items()]
    if sentence := verdict(entries or ()):
        lines = [sentence, "", *lines]
    return "\n".join(lines) + "\n"


def results_view(spec: SearchSpec, languages: Sequence[str], now_ms: int) -> dict[str, str]:
    """A view of the table of runs that MLflow offers under Views: the best trial first, and of the
    hundreds of columns those that tell trials apart.

    Args:
        spec: The search.
        languages: Codes of the languages that are scored.
        now_ms: Milliseconds since 1970.

    Returns:
        The tags of the experiment that are the view.
    """
    columns = [
        *(f"metrics.`{name}`" for name in (OBJECTIVE, HEADLINE)),
        *(f"metrics.`test/accuracy/{code}`" for code in languages[:_MOST_LANGUAGES]),
        *(f"params.`{key}`" for key in spec.search.parameters),
        "tags.`status`",
    ]
    state = {
        "orderByKey": f"metrics.`{OBJECTIVE}`",
        "orderByAsc": False,
        "selectedColumns": columns,
    }
    view = {"name": VIEW.capitalize(), "createdAt": now_ms, "updatedAt": now_ms}
    return {VIEW_TAG: json.dumps(view | {"state": json.dumps(state)})}


def results_page(address: str, experiment_id: str) -> str:
    """The address of that view.

    Opened without it, MLflow's pages of an experiment are those of applications of language models,
    until a visitor chooses "Model training" there; an experiment's kind is not looked at.

    Args:
        address: Where MLflow's pages are, such as `http://127.0.0.1:5000`.
        experiment_id: MLflow's id of the experiment.
    """
    page = f"{address.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{page}?viewStateShareKey={VIEW}&workflowType=machine_learning"
