"""Alignment and language pairs of the pretrained encoder, plain and the best trial."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from xlt_ray.evaluation.assessment import Assessment, assess_checkpoint
from xlt_ray.figures import results as result_figures
from xlt_ray.figures import style
from xlt_ray.names import BEST, PRETRAINED
from xlt_ray.report.tables import alignment_table, print_whole
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.plan import Plan, parameters_of
from xlt_ray.search.trials import trial_spec
from xlt_ray.tracking.recorder import Recorder


def assess_models(
    entries: Sequence[Entry],
    plan: Plan,
    folder: Path,
    storage: str,
    recorder: Recorder,
    tags: Mapping[str, str],
    console: Console,
) -> None:
    """Measure the encoder as pretrained, plain fine-tuning and the best trial, side by side.

    Args:
        entries: The ranked trials of the search.
        plan: The search.
        folder: The search's folder; gets `assessment/`.
        storage: Where the trials' checkpoints are.
        recorder: Gets metrics, tables and pictures.
        tags: Tags of the run of the encoder as pretrained.
        console: Where the result is shown.
    """
    import ray

    wanted = plan.spec.assessment
    output = folder / "assessment"
    winner, plain = leaderboard.best(entries), leaderboard.baseline(entries)
    models = {PRETRAINED: None, "plain": plain, BEST: winner}
    models = {name: entry for name, entry in models.items() if entry or name == PRETRAINED}
    if (wanted.alignment_rows == 0 and not wanted.generalized) or len(models) == 1:
        return
    lacking = wanted.generalized and not (output / f"generalized-{BEST}.csv").exists()
    if (output / "assessment.json").exists() and not lacking:
        return
    console.print(
        f"Measuring alignment{' and pairs of languages' if wanted.generalized else ''} of "
        f"{', '.join(models)}",
        highlight=False,
    )
    resources = plan.spec.resources
    task = ray.remote(assess_checkpoint).options(
        num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker
    )
    pending = {
        name: task.remote(
            trial_spec(plan.spec, entry.values if entry else {}),
            entry.checkpoint if entry else None,
            storage,
            wanted.alignment_rows,
            wanted.generalized_rows or 10**9 if wanted.generalized and entry else None,
        )
        for name, entry in models.items()
    }
    found: dict[str, Assessment] = {}
    for name, reference in pending.items():
        try:
            found[name] = ray.get(reference)
        except ray.exceptions.RayError as error:
            # The search's own results must not be lost for this.
            reason = str(error).strip().splitlines()[-1]
            console.print(f"{name} could not be measured: {reason}", highlight=False)
    output.mkdir(exist_ok=True)
    recorder.start_trial(
        PRETRAINED,
        PRETRAINED,
        parameters_of(plan.spec),
        {**tags, "stage": "assessment", "trial": PRETRAINED},
    )
    for name, assessment in found.items():
        entry = models[name]
        metrics = dict(assessment.alignment)
        if assessment.matrix is not None:
            metrics |= _keep_matrix(name, assessment.matrix, plan, output)
        label = entry.label if entry else PRETRAINED
        recorder.log_metrics(label, metrics, step=plan.training.steps if entry else 0)
    recorder.end_trial(PRETRAINED, "FINISHED")
    _draw_alignment(found, plan, output)
    tables = {name: assessment.alignment for name, assessment in found.items()}
    (output / "assessment.json").write_text(json.dumps(tables, indent=2), encoding="utf-8")
    recorder.log_artifact(None, output)
    if any(tables.values()):
        print_whole(alignment_table(tables, plan.task.target_languages), console)


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
