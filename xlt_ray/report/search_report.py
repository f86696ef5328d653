"""What the trials of a search tell together: methods over seeds, alignment, pairs of languages, how
the search went; and the report of it all."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from xlt_ray import names
from xlt_ray.evaluation import comparison
from xlt_ray.evaluation.intervals import Correct, accuracy_interval, rank_correlation
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.figures import optuna as optuna_figures
from xlt_ray.figures import results as result_figures
from xlt_ray.figures import search as search_figures
from xlt_ray.figures import style
from xlt_ray.figures.trials import NothingToDraw
from xlt_ray.names import BEST, OBJECTIVE, VIRTUAL
from xlt_ray.report import comparison_tables
from xlt_ray.report import html as html_report
from xlt_ray.report import tables as report_tables
from xlt_ray.report.tables import alignment_table, print_whole
from xlt_ray.search import leaderboard, summary
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.plan import SearchOutline
from xlt_ray.search.trials import LABELS, seed_label
from xlt_ray.tracking.recorder import Recorder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_logger = logging.getLogger(__name__)


def compare_methods(
    runs: Sequence[Entry], plan: SearchOutline, folder: Path, recorder: Recorder, console: Console
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
        if all(seed_label(name, seed) in finished for name in names)
    ]
    if not seeds:
        console.print("No comparison: there is no seed with which every method finished.")
        return []
    correct = {
        name: _correct([folder / "predictions" / f"{seed_label(name, seed)}.npz" for seed in seeds])
        for name in names
    }
    languages, source = plan.task.languages, plan.task.source_language
    compared = comparison.compare(correct, seeds, languages, source)
    for path in comparison_tables.write(compared, folder):
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
    views = comparison_tables.tables(compared)
    for view in views:
        print_whole(view, console)
    return views


def draw_search(
    entries: Sequence[Entry], plan: SearchOutline, folder: Path, recorder: Recorder
) -> None:
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
    entries: Sequence[Entry], plan: SearchOutline, folder: Path, recorder: Recorder
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
        "history": lambda: optuna_figures.history(entries, objective),
        "learning-curves": lambda: search_figures.learning_curves(curves(), entries, objective),
        "test-accuracy": lambda: search_figures.accuracy_of_trials(entries, languages, source),
        "importances": lambda: optuna_figures.importances(entries, parameters, objective),
        "slices": lambda: optuna_figures.slices(entries, parameters, objective),
        "parallel-coordinates": lambda: optuna_figures.parallel_coordinates(
            entries, parameters, objective
        ),
        "landscape": lambda: search_figures.landscape(entries, parameters, objective),
    }
    for name, draw in drawings.items():
        path = output / f"{name}.png"
        path.unlink(missing_ok=True)  # of the search before it went on
        try:
            style.save(draw(), path)
        except NothingToDraw as reason:
            _logger.debug("no picture %s: %s", name, reason)
        except Exception as error:
            # The search's own results must not be lost for a picture.
            _logger.warning("the picture %s could not be drawn: %s", name, error)
        else:
            recorder.log_artifact(None, path, "pictures")


def report_search(
    entries: Sequence[Entry],
    plan: SearchOutline,
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
        facts = summary.facts(plan, typed, entries)
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
    plan: SearchOutline,
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
        facts: What it is and what came of it, as of :func:`xlt_ray.search.summary.facts`.
        tables: Tables beside the leaderboard and that of alignment.

    Returns:
        HTML.

    Raises:
        OSError: If a picture cannot be read.
        ValueError: If `assessment.json` cannot.
    """
    board = report_tables.table(
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
        summary=summary.verdict(entries) or "",
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
    correct: Mapping[str, Correct], plan: SearchOutline, folder: Path, recorder: Recorder
) -> None:
    languages, source = plan.task.languages, plan.task.source_language
    columns = {code: [code] for code in languages}
    columns[names.ZERO_SHOT_MEAN] = [code for code in languages if code != source]
    intervals = {
        name: {column: accuracy_interval(arrays, codes) for column, codes in columns.items()}
        for name, arrays in correct.items()
    }
    figure = result_figures.accuracy_by_language(intervals, languages, source)
    path = folder / "accuracy.png"
    style.save(figure, path)
    recorder.log_artifact(None, path, "pictures")


def correlate_objectives(
    entries: Sequence[Entry], plan: SearchOutline, recorder: Recorder, console: Console
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
    test = [entry.test[f"accuracy/{names.ZERO_SHOT_MEAN}"] for entry in finished]
    view = Table(
        title=f"Rank correlation of dev objectives with the test zero-shot mean, "
        f"{len(finished)} runs",
    )
    for column in ("objective", "Spearman", "p"):
        view.add_column(column, justify="left" if column == "objective" else "right")
    for name in (source, source + VIRTUAL, names.ZERO_SHOT_MEAN):
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
