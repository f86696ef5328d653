"""Assess the pretrained encoder, plain fine-tuning and the best trial: alignment, language pairs.

The stage `assess` of a search calls it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xlt_ray.figures import results as result_figures
from xlt_ray.figures import style
from xlt_ray.files import json_text
from xlt_ray.names import BASELINE, BEST, PRETRAINED
from xlt_ray.pipeline.stage import SearchRun
from xlt_ray.report.tables import alignment_table, print_whole
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.plan import Plan, parameters_of
from xlt_ray.search.trials import trial_spec

if TYPE_CHECKING:
    from xlt_ray.evaluation.assessment import Assessment


MEASURED = "models.json"
"""File that tells what was measured: a resumed search may have another winner, or measure more
rows."""


def assess_models(run: SearchRun) -> None:
    """Assess the models of a search, each once, and show and record the result.

    Args:
        run: The search, after its trials are ranked; its folder gets `assessment/`.
    """
    from xlt_ray.cluster.assessment_task import assess_on_cluster

    plan, recorder, output = run.plan, run.recorder, run.folder / "assessment"
    models = _models(run)
    if not models:
        return
    pairs = " and language pairs" if plan.spec.assessment.generalized else ""
    run.tell(f"Measuring alignment{pairs} of {', '.join(models)}")
    found = assess_on_cluster(
        models,
        {
            name: leaderboard.trained_as(entry, run.entries).spec(plan.spec)
            if entry
            else trial_spec(plan.spec, {})
            for name, entry in models.items()
        },
        run.storage,
        failed=lambda name, reason: run.tell(f"{name} could not be measured: {reason}"),
    )
    output.mkdir(exist_ok=True)
    recorder.start_trial(
        PRETRAINED,
        PRETRAINED,
        parameters_of(plan.spec),
        {**run.tags, "stage": "assessment", "trial": PRETRAINED},
    )
    for name, assessment in found.items():
        entry = models[name]
        metrics = dict(assessment.alignment)
        if assessment.matrix is not None:
            metrics |= _keep_matrix(name, assessment.matrix, plan, output)
        label = entry.label if entry else PRETRAINED
        method = entry.trial.spec(plan.spec).method.name if entry else None
        recorder.log_metrics(label, metrics, step=plan.schedule(method).steps if method else 0)
    recorder.end_trial(PRETRAINED, "FINISHED")
    _draw_alignment(found, plan, output)
    metrics_of = {name: assessment.alignment for name, assessment in found.items()}
    (output / "assessment.json").write_text(json_text(metrics_of), encoding="utf-8")
    (output / MEASURED).write_text(
        json_text(_measurement({name: models[name] for name in found}, plan)), encoding="utf-8"
    )
    recorder.log_artifact(None, output)
    if any(metrics_of.values()):
        print_whole(alignment_table(metrics_of, plan.task.target_languages), run.console)


def _models(run: SearchRun) -> dict[str, Entry | None]:
    """Return the trials to assess by model name, None for the pretrained encoder.

    `best` is the winner; if plain fine-tuning won, it is the best other configuration. Empty if the
    search asks for no assessment, has no finished trial, or has the assessment of these models.
    """
    wanted, output = run.plan.spec.assessment, run.folder / "assessment"
    plain, best = leaderboard.baseline(run.entries), run.winner
    if best is plain:
        best = leaderboard.best_searched(run.entries)
    trained = {BASELINE: plain} | ({BEST: best} if best is not plain else {})
    trained = {name: entry for name, entry in trained.items() if entry is not None}
    if not trained or not (wanted.alignment_rows or wanted.generalized):
        return {}
    lacks_pairs = wanted.generalized and not all(
        (output / f"generalized-{name}.csv").exists() for name in trained
    )
    models = {PRETRAINED: None, **trained}
    now, kept = _measurement(models, run.plan), _measured(output / MEASURED)
    # What is not asked for any more does not count.
    same = kept is not None and all(now.get(key, kept[key]) == kept[key] for key in kept)
    return {} if same and not lacks_pairs else models


def _measurement(models: Mapping[str, Entry | None], plan: Plan) -> dict[str, Any]:
    """Return what tells whether a measurement is the same: the models and the numbers of rows."""
    wanted = plan.spec.assessment
    return {
        "models": {
            name: [entry.label, *entry.members] if entry else [] for name, entry in models.items()
        },
        "alignment_rows": wanted.alignment_rows,
        **({"generalized_rows": wanted.generalized_rows} if wanted.generalized else {}),
    }


def _measured(file: Path) -> dict[str, Any] | None:
    """Return the measurement that was kept; None without a readable file."""
    try:
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # An earlier version wrote the models only.
    return kept if "models" in kept else {"models": kept}


def _keep_matrix(name: str, matrix: np.ndarray, plan: Plan, output: Path) -> dict[str, float]:
    # Imports torch, which the driver otherwise does without.
    from xlt_ray.evaluation.language_pairs import generalized_metrics, write_table

    languages = plan.task.languages
    write_table(matrix, languages, output / f"generalized-{name}.csv")
    style.save(result_figures.language_pairs(matrix, languages), output / f"generalized-{name}.png")
    return generalized_metrics(matrix, languages, plan.task.source_language)


def _draw_alignment(found: Mapping[str, Assessment], plan: Plan, output: Path) -> None:
    targets = plan.task.target_languages
    retrieval = {
        name: {code: assessment.alignment[f"alignment/retrieval/{code}"] for code in targets}
        for name, assessment in found.items()
        if assessment.alignment
    }
    if retrieval:
        style.save(
            result_figures.alignment_by_language(retrieval, targets), output / "alignment.png"
        )
    if PRETRAINED in found and BEST in found:
        before, after = (
            result_figures.Points(found[name].projection, found[name].language, title)
            for name, title in ((PRETRAINED, "before fine-tuning"), (BEST, "after, best trial"))
        )
        style.save(
            result_figures.projection(before, after, plan.task.languages), output / "projection.png"
        )
