"""Names and descriptions of a search's runs in MLflow; pipeline and cluster use them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xlt_ray.config.spec import SearchSpec
from xlt_ray.names import OBJECTIVE, ZERO_SHOT_ACCURACY
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.ledger import Record
from xlt_ray.search.plan import SearchOutline
from xlt_ray.search.summary import facts, short_values, signs
from xlt_ray.search.trials import Trial, TrialStatus
from xlt_ray.search.verdict import Verdict

NOTE_TAG = "mlflow.note.content"
"""The tag that MLflow shows as a run's description, in Markdown."""


def run_name(spec: SearchSpec, trial: Trial) -> str:
    """Return the name of a trial's run: its label and, for a proposed trial, method and values.

    Args:
        spec: The search.
        trial: The trial.

    Returns:
        A name such as `07 ear m=0.4 β=12 r=0.6`.
    """
    if not trial.proposed:
        return trial.label  # The label names the configuration.
    values = dict(trial.values)
    method = values.pop("method.name", spec.method.name)
    return " ".join(filter(None, (trial.label, method, signs(values))))


def trial_note(spec: SearchSpec, record: Record) -> str:
    """Return the description of a trial's run, one line of Markdown.

    Args:
        spec: The search.
        record: The trial's record in the ledger.
    """
    method = record.trial.spec(spec).method.name
    values = {key: value for key, value in record.trial.values.items() if key != "method.name"}
    shown = short_values(values) if record.trial.proposed else ""
    text = f"`{method}`" + (f" with `{shown}`" if shown else "")
    if record.status == TrialStatus.RUNNING:
        return text
    text += f"; {'stopped early' if record.status == TrialStatus.PRUNED else record.status}"
    if record.status == TrialStatus.FAILED:
        return f"{text}: {record.reason}"
    metrics = record.metrics
    if OBJECTIVE in metrics:
        text += f", {spec.search.objective} {100 * metrics[OBJECTIVE]:.1f} %"
    if f"test/{ZERO_SHOT_ACCURACY}" in metrics:
        text += f", test zero-shot mean {100 * metrics[f'test/{ZERO_SHOT_ACCURACY}']:.1f} %"
    return text


def search_note(
    plan: SearchOutline,
    folder: Path,
    entries: Sequence[Entry] | None = None,
    verdict: Verdict | None = None,
) -> str:
    """Return the description of a search's run in Markdown.

    Args:
        plan: The search.
        folder: The search's folder, as a user types it.
        entries: The ranked trials; None: the search has just started.
        verdict: The verdict on its winner; None: no trial finished yet.
    """
    found = facts(plan, folder, entries, verdict)
    lines = [f"- **{what}**: {text}" for what, text in found.items()]
    if verdict is not None:
        lines = [verdict.sentence, "", *lines]
    return "\n".join(lines) + "\n"
