"""What the trials of a search tell together: methods over seeds, alignment, pairs of languages, how
the search went; and the report of it all."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from xlt_ray.cluster.trial import trial_spec
from xlt_ray.config.spec import OBJECTIVE, VIRTUAL
from xlt_ray.evaluation import comparison
from xlt_ray.evaluation.assessment import Assessment, assess_checkpoint
from xlt_ray.evaluation.intervals import Correct, accuracy_interval, rank_correlation
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.figures import results, search
from xlt_ray.figures.search import NothingToDraw
from xlt_ray.report import html as html_report
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.plan import BEST, LABELS, Outline, Plan, parameters_of
from xlt_ray.tracking import descriptions
from xlt_ray.tracking.recorder import Recorder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_logger = logging.getLogger(__name__)

PRETRAINED = "pretrained"
"""Label of the encoder before fine-tuning."""


def compare_methods(
    runs: Sequence[Entry], plan: Outline, folder: Path, recorder: Recorder, console: Console
) -> list[Table]:
    """Compare the best configuration with the baselines over their seeds, item by item.

    Args:
        runs: The comparison's trials.
        plan: The search.
        folder: The search's folder, which holds the predictions; gets the tables.
        recorder: Gets the tables and the picture.
        console: Where the tables are shown.

    Returns:
        The tables.
    """
    for path in leaderboard.write(runs, folder, "comparison-runs"):
        recorder.log_artifact(None, path)
    names = [BEST, *(LABELS[name] for name in plan.compared)]
    finished = {entry.label for entry in runs if entry.status == "finished"}
    # What differs between seeds can only be told of seeds that all methods have finished.
    seeds = [
        seed
        for seed in plan.comparison_seeds
        if all(f"{name}-seed{seed}" in finished for name in names)
    ]
    if not seeds:
        console.print("No comparison: there is no seed with which every method finished.")
        return []
    correct = {
        name: _correct([folder / "predictions" / f"{name}-seed{seed}.npz" for seed in seeds])
        for name in names
    }
    languages, source = plan.task.languages, plan.task.source_language
    compared = comparison.compare(correct, seeds, languages, source)
    for path in comparison.write(compared, folder):
        recorder.log_artifact(None, path)
    for name in compared.methods:
        found = compared.accuracy[name]
        recorder.log_metrics(
            None,
            {f"comparison/{name}/{column}": found[column].mean for column in compared.columns},
            step=0,
        )
    _draw_accuracies(correct, plan, folder, recorder)
    console.print()
    views = comparison.tables(compared)
    for view in views:
        print_whole(view, console)
    return views


def draw_search(entries: Sequence[Entry], plan: Outline, folder: Path, recorder: Recorder) -> None:
    """Draw the accuracies of the best trial and of the baselines, one run each."""
    winner = leaderboard.best(entries)
    shown = {BEST: winner} | {
        entry.label: entry for entry in entries if entry.status == "finished" and entry.rank is None
    }
    correct = {
        name: _correct([folder / "predictions" / f"{entry.label}.npz"])
        for name, entry in shown.items()
        if entry is not None
    }
    if correct:
        _draw_accuracies(correct, plan, folder, recorder)


def picture_search(
    entries: Sequence[Entry], plan: Outline, folder: Path, recorder: Recorder
) -> None:
    """Draw how the search went; what cannot be drawn is left out and costs nothing else.

    Args:
        entries: The ranked trials of the search.
        plan: The search.
        folder: The search's folder, with its ledger and its study; gets `pictures/`.
        recorder: Gets the pictures.
    """
    output = folder / "pictures"
    output.mkdir(exist_ok=True)
    objective, parameters = plan.spec.search.objective, plan.spec.search.parameters
    languages, source = plan.task.languages, plan.task.source_language

    def curves() -> dict[str, list[tuple[float, float]]]:
        return {
            label: [(found["step"], found[OBJECTIVE]) for found in record.evaluations]
            for label, record in Ledger(folder / "trials.jsonl").records.items()
        }

    drawings: dict[str, Callable[[], Figure]] = {
        "history": lambda: search.history(entries, objective),
        "learning-curves": lambda: search.learning_curves(curves(), entries, objective),
        "test-accuracy": lambda: search.accuracy_of_trials(entries, languages, source),
        "importances": lambda: search.importances(entries, parameters, objective),
        "slices": lambda: search.slices(entries, parameters, objective),
        "parallel-coordinates": lambda: search.parallel_coordinates(entries, parameters, objective),
        "landscape": lambda: search.landscape(entries, parameters, objective),
    }
    for name, draw in drawings.items():
        path = output / f"{name}.png"
        path.unlink(missing_ok=True)  # of the search before it went on
        try:
            results.save(draw(), path)
        except NothingToDraw as reason:
            _logger.debug("no picture %s: %s", name, reason)
        except Exception as error:
            # The search's own results must not be lost for a picture.
            _logger.warning("the picture %s could not be drawn: %s", name, error)
        else:
            recorder.log_artifact(None, path, "pictures")


def report_search(
    entries: Sequence[Entry],
    plan: Outline,
    folder: Path,
    typed: Path,
    tables: Sequence[Table],
    recorder: Recorder,
) -> None:
    """Write all there is to see of a search into one page, `report.html`.

    Args:
        entries: The ranked trials of the search.
        plan: The search.
        folder: The search's folder, with the pictures drawn and what was measured before; gets
            the page.
        typed: The folder as a person would type it.
        tables: Tables beside the leaderboard.
        recorder: Gets the page.
    """
    page = folder / "report.html"
    try:
        facts = descriptions.facts(plan, typed, entries)
        text = report_page(folder.name, entries, plan, folder, facts, tables)
        page.write_text(text, encoding="utf-8")
    except Exception as error:
        # Nor for this page: all that it shows is elsewhere too.
        _logger.warning("the report could not be written: %s", error)
    else:
        recorder.log_artifact(None, page)


def report_page(
    title: str,
    entries: Sequence[Entry],
    plan: Outline,
    folder: Path,
    facts: Mapping[str, str],
    tables: Sequence[Table],
) -> str:
    """Lay all there is to see of a search out as one page.

    Args:
        title: The search's name.
        entries: Its ranked trials.
        plan: The search.
        folder: Holds `accuracy.png`, `pictures/` and `assessment/`, as far as there are any.
        facts: What it is and what came of it, as of :func:`xlt_ray.tracking.descriptions.facts`.
        tables: Tables beside the leaderboard and that of alignment.

    Returns:
        HTML.

    Raises:
        OSError: If a picture cannot be read.
        ValueError: If `assessment.json` cannot.
    """
    board = leaderboard.table(
        entries, plan.spec.search.objective, list(plan.spec.search.parameters), plan.task.languages
    )
    drawn = [folder / "accuracy.png"]
    for place in ("pictures", "assessment"):
        drawn += sorted((folder / place).glob("*.png"))
    measured = folder / "assessment" / "assessment.json"
    found = json.loads(measured.read_text(encoding="utf-8")) if measured.exists() else {}
    aligned = [alignment_table(found, plan.task.target_languages)] if any(found.values()) else []
    return html_report.page(
        title=title,
        summary=descriptions.verdict(entries) or "",
        facts=facts,
        tables=[board, *tables, *aligned],
        failures={entry.label: entry.reason for entry in entries if entry.status == "failed"},
        pictures=[path for path in drawn if path.exists()],
    )


def _correct(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Whether each test item was classified rightly: (seeds, items), by language."""
    by_seed = [Predictions.load(file).correct() for file in files]
    return {code: np.stack([correct[code] for correct in by_seed]) for code in by_seed[0]}


def _draw_accuracies(
    correct: Mapping[str, Correct], plan: Outline, folder: Path, recorder: Recorder
) -> None:
    languages, source = plan.task.languages, plan.task.source_language
    columns = {code: [code] for code in languages}
    columns[results.ZERO_SHOT_MEAN] = [code for code in languages if code != source]
    intervals = {
        name: {column: accuracy_interval(arrays, codes) for column, codes in columns.items()}
        for name, arrays in correct.items()
    }
    figure = results.accuracy_by_language(intervals, languages, source)
    path = folder / "accuracy.png"
    results.save(figure, path)
    recorder.log_artifact(None, path, "pictures")


def correlate_objectives(
    entries: Sequence[Entry], plan: Outline, recorder: Recorder, console: Console
) -> list[Table]:
    """Tell how well each dev objective orders the finished trials by their zero-shot mean.

    Args:
        entries: The trials of the search and of the comparison.
        plan: The search.
        recorder: Gets `correlation/<objective>`.
        console: Where the correlations are shown.

    Returns:
        The table of them; none where there are too few trials.
    """
    finished = [entry for entry in entries if entry.status == "finished"]
    source = plan.task.source_language
    test = [entry.test[f"accuracy/{results.ZERO_SHOT_MEAN}"] for entry in finished]
    view = Table(
        title=f"Rank correlation of dev objectives with the test zero-shot mean, "
        f"{len(finished)} runs",
    )
    for column in ("objective", "Spearman", "p"):
        view.add_column(column, justify="left" if column == "objective" else "right")
    for name in (source, source + VIRTUAL, results.ZERO_SHOT_MEAN):
        try:
            found, chance = rank_correlation(
                [entry.selected[f"accuracy/{name}"] for entry in finished], test
            )
        except ValueError:
            continue
        view.add_row(f"dev/accuracy/{name}", f"{found:+.2f}", f"{chance:.3f}")
        recorder.log_metrics(None, {f"correlation/{name}": found}, step=0)
    if not view.row_count:
        return []
    print_whole(view, console)
    return [view]


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
    results.save(results.language_pairs(matrix, languages), output / f"generalized-{name}.png")
    return generalized_metrics(matrix, languages, plan.task.source_language)


def _draw_alignment(found: Mapping[str, Assessment], plan: Plan, output: Path) -> None:
    targets = plan.task.target_languages
    retrieval = {
        name: {code: assessment.alignment[f"alignment/retrieval/{code}"] for code in targets}
        for name, assessment in found.items()
        if assessment.alignment
    }
    if retrieval:
        results.save(results.alignment_by_language(retrieval, targets), output / "alignment.png")
    if PRETRAINED in found and BEST in found:
        before, after = (
            results.Points(found[name].projection, found[name].language, title)
            for name, title in ((PRETRAINED, "before fine-tuning"), (BEST, "after, best trial"))
        )
        results.save(
            results.projection(before, after, plan.task.languages), output / "projection.png"
        )


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
