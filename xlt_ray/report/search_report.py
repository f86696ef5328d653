"""The report of a search: comparison, pictures, correlations and one HTML page.

The pipeline makes it at the end of a search; `from_folder` and `from_mlflow` make it again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from xlt_ray.evaluation import comparison
from xlt_ray.evaluation.intervals import (
    Correct,
    OtherTexts,
    accuracy_interval,
    rank_correlation,
)
from xlt_ray.evaluation.saved_predictions import correct_of
from xlt_ray.evaluation.scores import objectives
from xlt_ray.figures import optuna as optuna_figures
from xlt_ray.figures import results as result_figures
from xlt_ray.figures import search as search_figures
from xlt_ray.figures import style
from xlt_ray.figures.common import NothingToDraw
from xlt_ray.files import with_nan
from xlt_ray.names import BEST, LEDGER, OBJECTIVE, ZERO_SHOT_ACCURACY, ZERO_SHOT_MEAN
from xlt_ray.report import comparison_tables, confirmation
from xlt_ray.report import html as html_report
from xlt_ray.report import tables as report_tables
from xlt_ray.report.tables import print_whole
from xlt_ray.search import inputs, leaderboard, summary
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.plan import SearchOutline
from xlt_ray.search.trials import LABELS, Trial, TrialStatus, best_label, seed_label
from xlt_ray.search.verdict import Verdict
from xlt_ray.tracking.recorder import Recorder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_logger = logging.getLogger(__name__)

STAGE = "comparison"
"""Name of the comparison's folder, and of its stage in MLflow."""

StageTrials = Callable[[Sequence[Trial], str], list[Entry]]
"""Returns the results of a stage, from its fixed trials and the name of its folder: the pipeline
runs the trials, a rebuilt report reads them from the stage's ledger."""


@dataclass
class SearchReport:
    """A report in the making. Call `draw`, `compare` and `write`, in this order.

    The pipeline and the rebuild from a folder both make it.
    """

    outline: SearchOutline
    """The search and its task."""
    folder: Path
    """The search's folder: has the ledger and the predictions, gets tables, pictures and page."""
    typed: Path
    """The folder as a user would type it."""
    recorder: Recorder
    """Gets a copy of every file, and the metrics."""
    console: Console
    """Shows the tables."""
    entries: Sequence[Entry]
    """The ranked trials of the search."""
    verdict: Verdict | None = None
    """The winner against plain fine-tuning; None if no trial finished."""
    runs: Sequence[Entry] = ()
    """The trials of the comparison, which come after those of the search."""
    tables: list[Table] = field(default_factory=list)
    """The tables that follow the leaderboard and the confirmation."""

    def draw(self) -> None:
        """Draw the search. With a comparison, `compare` draws the accuracies."""
        if not self.outline.spec.search.comparison_seeds:
            self._draw_accuracies()
        self._draw_pictures()

    def compare(self, stage_trials: StageTrials) -> None:
        """Compare the methods over the comparison's seeds, if the search has any.

        Args:
            stage_trials: Runs or reads the comparison's trials.
        """
        winner = self.verdict.winner if self.verdict else None
        outline, chosen = self.outline, leaderboard.best_searched(self.entries, winner)
        if outline.repeats:
            self._compare_runs(with_predictions(self.entries, self.folder), BEST)
        elif outline.spec.search.comparison_seeds and chosen is not None:
            # The label of the best configuration's runs has its own: should a resumed search find
            # another, only that one's are new.
            trials = outline.comparison_trials(chosen.trial)
            self.runs = with_predictions(stage_trials(trials, STAGE), self.folder)
            self._compare_runs(self.runs, best_label(chosen.label))

    def write(self) -> None:
        """Correlate the objectives and write `report.html`; log a warning if that fails."""
        self.tables += correlate_objectives(
            [*self.entries, *self.runs], self.outline, self.recorder, self.console
        )
        page = self.folder / "report.html"
        try:
            facts = summary.facts(self.outline, self.typed, self.entries, self.verdict)
            if warned := inputs.warning(self.folder / LEDGER):
                facts = {"Warning": warned, **facts}
            tables = [*confirmation.tables(self.folder), *self.tables]
            text = report_page(
                self.folder.name,
                self.entries,
                self.outline,
                self.folder,
                facts,
                tables,
                self.verdict,
            )
            page.write_text(text, encoding="utf-8")
        except Exception as error:
            # Everything on the page is in other files too.
            _logger.warning("the report could not be written: %s", error)
        else:
            self.recorder.log_artifact(None, page)

    def _compare_runs(self, runs: Sequence[Entry], best: str) -> None:
        """Compare the best configuration with the baselines over the seeds, item by item.

        Args:
            runs: The trials of the comparison.
            best: Label of the best configuration's, without the seed.
        """
        for path in self.folder.glob("comparison.*"):
            path.unlink()  # from before the search was resumed
        for path in leaderboard.write(runs, self.folder, "comparison-runs"):
            self.recorder.log_artifact(None, path)
        labels = {BEST: best} | {LABELS[name]: LABELS[name] for name in self.outline.compared}
        finished = {entry.label for entry in runs if entry.status == TrialStatus.FINISHED}
        # Paired differences need seeds that every method has finished.
        seeds = [
            seed
            for seed in self.outline.comparison_seeds
            if all(seed_label(label, seed) in finished for label in labels.values())
        ]
        if not seeds:
            self.console.print("No comparison: there is no seed with which every method finished.")
            return
        task = self.outline.task
        try:
            correct = {
                name: self._correct([seed_label(label, seed) for seed in seeds])
                for name, label in labels.items()
            }
            compared = comparison.compare(correct, seeds, task.languages, task.source_language)
        except OtherTexts as error:
            # The search was forced onto another test set when it was resumed.
            self.console.print(f"No comparison: {error}.", soft_wrap=True, markup=False)
            return
        for path in comparison_tables.write(compared, self.folder):
            self.recorder.log_artifact(None, path)
        for name in compared.methods:
            found = compared.accuracy[name]
            self.recorder.log_metrics(
                None,
                {f"comparison/{name}/{column}": found[column].mean for column in compared.columns},
                step=0,
            )
        self._draw_intervals(correct)
        self.console.print()
        views = comparison_tables.tables(compared)
        for view in views:
            print_whole(view, self.console)
        self.tables += views

    def _draw_accuracies(self) -> None:
        """Draw the test accuracies of the winner, the best configuration and the baselines.

        Each is one run. The winner is `best`, unless it is a baseline, which keeps its name.
        """
        entries = with_predictions(self.entries, self.folder)
        chosen = self.verdict and self.verdict.winner
        winner = next((entry for entry in entries if entry.label == chosen), None)
        baselines = [entry for entry in entries if entry.rank and entry.trial.baseline]
        shown = {
            BEST if entry is winner and not entry.trial.baseline else entry.label: entry
            for entry in (winner, leaderboard.best_searched(entries), *baselines)
            if entry is not None
        }
        correct = {name: self._correct([entry.label]) for name, entry in shown.items()}
        # A search that was forced onto other languages has trials that were not tested on them.
        whole = {
            name: arrays
            for name, arrays in correct.items()
            if arrays.keys() >= set(self.outline.task.languages)
        }
        if whole:
            self._draw_intervals(whole)

    def _correct(self, labels: Sequence[str]) -> Correct:
        """Return what a method's runs got right, from their predictions in the folder."""
        return correct_of([self.folder / "predictions" / f"{label}.npz" for label in labels])

    def _draw_intervals(self, correct: Mapping[str, Correct]) -> None:
        """Draw the test accuracy of each method in every language as `accuracy.png`."""
        languages, source = self.outline.task.languages, self.outline.task.source_language
        columns = {code: [code] for code in languages}
        columns[ZERO_SHOT_MEAN] = [code for code in languages if code != source]
        intervals = {
            name: {column: accuracy_interval(arrays, codes) for column, codes in columns.items()}
            for name, arrays in correct.items()
        }
        figure = result_figures.accuracy_by_language(intervals, languages, source)
        path = self.folder / "accuracy.png"
        style.save(figure, path)
        self.recorder.log_artifact(None, path, "pictures")

    def _draw_pictures(self) -> None:
        """Draw the course of the search into `pictures/`, and log why a picture is left out."""
        output = self.folder / "pictures"
        output.mkdir(exist_ok=True)
        entries, search, task = self.entries, self.outline.spec.search, self.outline.task
        objective, parameters = search.objective, search.parameters

        def curves() -> dict[str, list[tuple[float, float]]]:
            return {
                label: [(found["step"], found[OBJECTIVE]) for found in record.evaluations]
                for label, record in Ledger(self.folder / LEDGER).records.items()
            }

        drawings: dict[str, Callable[[], Figure]] = {
            "history": lambda: optuna_figures.history(entries, objective),
            "learning-curves": lambda: search_figures.learning_curves(curves(), entries, objective),
            "test-accuracy": lambda: search_figures.accuracy_of_trials(
                entries, task.languages, task.source_language
            ),
            "importances": lambda: optuna_figures.importances(entries, parameters, objective),
            "slices": lambda: optuna_figures.slices(entries, parameters, objective),
            "parallel-coordinates": lambda: optuna_figures.parallel_coordinates(
                entries, parameters, objective
            ),
            "landscape": lambda: search_figures.landscape(entries, parameters, objective),
        }
        for name, draw in drawings.items():
            path = output / f"{name}.png"
            path.unlink(missing_ok=True)  # from before the search was resumed
            try:
                style.save(draw(), path)
            except NothingToDraw as reason:
                _logger.debug("no picture %s: %s", name, reason)
            except Exception as error:
                # A picture must not cost the search its results.
                _logger.warning("the picture %s could not be drawn: %s", name, error)
            else:
                self.recorder.log_artifact(None, path, "pictures")


def with_predictions(entries: Iterable[Entry], folder: Path) -> list[Entry]:
    """Return the trials without those that finished but whose predictions are not copied yet.

    A stage copies the predictions when it ends, so only a search that is still running has such
    trials.
    """
    return [
        entry
        for entry in entries
        if entry.status != TrialStatus.FINISHED
        or (folder / "predictions" / f"{entry.label}.npz").exists()
    ]


def report_page(
    title: str,
    entries: Sequence[Entry],
    outline: SearchOutline,
    folder: Path,
    facts: Mapping[str, str],
    tables: Sequence[Table],
    verdict: Verdict | None = None,
) -> str:
    """Return the page that shows all results of a search.

    Args:
        title: The search's name.
        entries: Its ranked trials.
        outline: The search.
        folder: Has `accuracy.png`, `pictures/` and `assessment/`; each may be missing.
        facts: The search and its outcome, from :func:`xlt_ray.search.summary.facts`.
        tables: The tables between the leaderboard and the alignment.
        verdict: The winner against plain fine-tuning; its sentence comes first on the page.

    Returns:
        HTML.

    Raises:
        OSError: If a picture cannot be read.
        ValueError: If `assessment.json` cannot be parsed.
    """
    search, task = outline.spec.search, outline.task
    board = report_tables.leaderboard_table(
        entries,
        search.objective,
        list(search.parameters),
        task.languages,
        None if verdict is None else verdict.winner,
    )
    drawn = [folder / "accuracy.png"]
    for place in ("pictures", "assessment"):
        drawn += sorted((folder / place).glob("*.png"))
    measured = folder / "assessment" / "assessment.json"
    found = {}
    if measured.exists():
        read = json.loads(measured.read_text(encoding="utf-8"))
        found = {label: with_nan(metrics) for label, metrics in read.items()}
    aligned = (
        [report_tables.alignment_table(found, task.target_languages)] if any(found.values()) else []
    )
    return html_report.page(
        title=title,
        summary="" if verdict is None else verdict.sentence,
        facts=facts,
        tables=[board, *tables, *aligned],
        failures={
            entry.label: entry.reason for entry in entries if entry.status == TrialStatus.FAILED
        },
        pictures=[path for path in drawn if path.exists()],
    )


def correlate_objectives(
    entries: Sequence[Entry], outline: SearchOutline, recorder: Recorder, console: Console
) -> list[Table]:
    """Correlate each dev objective with the test zero-shot mean, over the finished trials.

    Args:
        entries: The trials of the search and of the comparison.
        outline: The search.
        recorder: Gets `correlation/<objective>`.
        console: Shows the correlations.

    Returns:
        The table of Spearman's rank correlations; none if there are too few trials.
    """
    finished = [entry for entry in entries if entry.status == TrialStatus.FINISHED]
    source = outline.task.source_language
    test = [entry.test[ZERO_SHOT_ACCURACY] for entry in finished]
    correlations: dict[str, tuple[float, float]] = {}
    for objective in objectives(source):
        name = objective.removeprefix("dev/")
        try:
            dev = [entry.selected[name] for entry in finished]
            correlations[objective] = rank_correlation(dev, test)
        except (KeyError, ValueError):
            # Recorded by a version without this measure, or too few trials.
            continue
        name = name.removeprefix("accuracy/")
        recorder.log_metrics(None, {f"correlation/{name}": correlations[objective][0]}, step=0)
    if not correlations:
        return []
    view = report_tables.correlation_table(correlations, len(finished))
    print_whole(view, console)
    return [view]
