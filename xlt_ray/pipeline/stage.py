"""The state of a search, and how it runs a stage's trials. `run`, `assess` and `deliver` use it."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from xlt_ray.config.base import seconds_of
from xlt_ray.errors import in_one_line
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.files import relative
from xlt_ray.names import LEDGER, LEDGER_FILE, STATE
from xlt_ray.pipeline.settings import RunSettings
from xlt_ray.report import trial_page
from xlt_ray.report.search_report import SearchReport
from xlt_ray.search import leaderboard
from xlt_ray.search.budget import Outlook, budget_reached
from xlt_ray.search.confirmation import Choice
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.ledger import Ledger, Record
from xlt_ray.search.plan import Plan
from xlt_ray.search.trials import Trial, TrialStatus
from xlt_ray.search.verdict import Verdict, winner_of
from xlt_ray.storage import below, filesystem, is_remote
from xlt_ray.tracking.descriptions import run_name
from xlt_ray.tracking.recorder import Recorder

if TYPE_CHECKING:
    from xlt_ray.data.labelled import Examples


@dataclass
class SearchRun:
    """A search in progress: what its stages share, and what they have found so far."""

    plan: Plan
    settings: RunSettings
    folder: Path
    """The search's folder, absolute."""
    recorder: Recorder
    tags: dict[str, str]
    """The tags of every run in MLflow."""
    console: Console
    entries: list[Entry] = field(default_factory=list)
    """The trials of the search, ranked after the stage `rank`."""
    verdict: Verdict | None = None
    """The winner against plain fine-tuning, after the stage `conclude`; None if no trial
    finished."""
    interrupted: bool = False
    """Whether a stage was stopped before all its trials ended."""
    model: Path | None = None
    """The folder of the exported best model."""
    choice: Choice | None = None
    """The winner of the confirmation; None: there was none."""
    confirmation: list[Entry] = field(default_factory=list)
    """The trials and soups of the confirmation."""
    confirmed_seeds: tuple[int, ...] = ()
    """The fresh seeds with which every candidate of the confirmation finished."""

    @property
    def storage(self) -> str:
        """The folder or URI that has the search's folder of checkpoints."""
        remote = is_remote(self.settings.storage)
        return self.settings.storage if remote else str(self.folder.parent)

    @property
    def winner(self) -> Entry | None:
        """The winner of the confirmation if there was one, else the first-ranked trial."""
        return winner_of(self.entries, self.choice)

    @cached_property
    def helper(self) -> Executor:
        """Another process, for what imports torch and holds the best model in memory."""
        return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    @cached_property
    def report(self) -> SearchReport:
        """The report of the ranked trials."""
        typed = relative(self.folder)
        return SearchReport(
            self.plan,
            self.folder,
            typed,
            self.recorder,
            self.console,
            self.entries,
            self.verdict,
        )

    def tell(self, line: str) -> None:
        """Print a line without wrapping or highlighting it."""
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def search_trials(self) -> list[Entry]:
        """Run the trials of the search; return them with the baselines that ran earlier."""
        entries = self._stage(self.plan.fixed_trials(), self.folder.name, self.plan.trials)
        return entries + leaderboard.earlier_baselines(Ledger(self.folder / LEDGER), self.plan)

    def run_fixed_trials(self, fixed: Sequence[Trial], name: str) -> list[Entry]:
        """Run the trials of a further stage: the confirmation or the comparison.

        Args:
            fixed: The trials.
            name: The name of the stage's folder.
        """
        return self._stage(list(fixed), name, len(fixed))

    def _stage(self, fixed: list[Trial], name: str, trials: int) -> list[Entry]:
        """Run the trials of a stage that have not ended yet; return the results of all.

        The stage also copies and shows the test predictions of the finished trials.
        """
        from xlt_ray.cluster.connection import offered
        from xlt_ray.cluster.progress import ShowProgress
        from xlt_ray.cluster.recording import RecordTrials
        from xlt_ray.cluster.tune import Stage, resumed_pruner, run_tune
        from xlt_ray.search.study import STUDY_FILE, Study

        spec, search = self.plan.spec, name == self.folder.name
        # The search's own trials have the folder itself, each further stage one inside it.
        place = STATE if search else f"{STATE}/{name}"
        ledger = Ledger(self.folder / place / LEDGER_FILE)
        ledger.begin(spec.model_dump(mode="json"), self.plan.inputs)
        study = Study(spec, self.folder / STUDY_FILE if search else None)
        concurrent = offered().concurrent_trials(spec)
        pruner = resumed_pruner(self.plan, fixed, ledger)
        before = leaderboard.stage_records(ledger, fixed)
        self._announce(before, trials, concurrent)
        tags = self.tags | {"stage": "search" if search else name}
        record = RecordTrials(self.recorder, ledger, study, self.plan, tags)
        record.catch_up()
        # The budget is the search's; its comparison and confirmation are of a known size.
        over = partial(budget_reached, spec.search, ledger) if search else lambda: None
        progress = ShowProgress(
            self.console,
            trials,
            spec.search.objective,
            search,
            before,
            self._outlook(ledger, before, trials, concurrent, limited=search),
        )
        storage = below(self.storage, f"{self.folder.name}/{place}")
        run_tune(
            self.plan,
            fixed,
            trials,
            Stage(study, ledger, pruner, concurrent, storage, name, over),
            callbacks=[record, progress],
        )
        entries = leaderboard.stage_entries(ledger, fixed)
        reason = over()
        if reason is not None and len(entries) < trials:
            self.tell(f"No more trials start: {reason}; {len(entries)} of {trials} started.")
            trials = len(entries)
        self.interrupted |= is_interrupted(entries, trials)
        for entry in entries:
            if entry.status == TrialStatus.FINISHED and entry.checkpoint:
                self.keep_predictions(entry, entry.checkpoint)
        return entries

    def _outlook(
        self,
        ledger: Ledger,
        before: Mapping[str, Record],
        trials: int,
        concurrent: int,
        limited: bool,
    ) -> Outlook:
        """Return the estimate of the time and money of a stage, in `limited` ones with a budget."""
        resources, budget = self.plan.spec.resources, self.plan.spec.search.time_budget
        gpus = resources.most_workers * resources.gpus_per_worker
        price = resources.price_per_gpu_hour

        def seconds_left() -> float:
            return seconds_of(budget or "") - ledger.elapsed

        return Outlook(
            trials,
            concurrent,
            before,
            price_per_hour=price * gpus if price is not None and gpus else None,
            elastic=resources.most_workers > resources.workers_per_trial,
            seconds_left=seconds_left if limited and budget is not None else None,
        )

    def _announce(self, before: Mapping[str, Record], trials: int, concurrent: int) -> None:
        count = sum(record.ended for record in before.values())
        ended = f" ({count} ended before)" if count else ""
        self.console.print(
            f"{trials} trials{ended}, {concurrent} side by side, in {relative(self.folder)}",
            soft_wrap=True,
            markup=False,
        )

    def keep_predictions(self, entry: Entry, checkpoint: str) -> None:
        """Copy a trial's test predictions from the storage to the folder; show new ones."""
        kept = self.folder / "predictions" / f"{entry.label}.npz"
        kept.parent.mkdir(exist_ok=True)
        try:
            with filesystem(self.storage).open_input_file(f"{checkpoint}/predictions.npz") as file:
                content = file.read()
        except FileNotFoundError:
            # The folder was moved, or somebody deleted its checkpoints; the copy is enough.
            if kept.exists():
                return
            raise
        if kept.exists() and kept.read_bytes() == content:
            return
        # Show before the copy: if the search stops in between, it shows them when it resumes.
        self._show_predictions(entry, content)
        kept.write_bytes(content)

    def _show_predictions(self, entry: Entry, content: bytes) -> None:
        """Record a trial's page in MLflow; a failure is only printed."""
        try:
            trial_page.record_trial(
                self.recorder,
                entry.label,
                run_name(self.plan.spec, entry.trial),
                Predictions.load(io.BytesIO(content)),
                self.plan.task,
                self._test_texts,
            )
        except Exception as error:
            self.tell(f"{entry.label}: {trial_page.PAGE} was not made: {in_one_line(error)}")

    @cached_property
    def _test_texts(self) -> dict[str, Examples]:
        """The texts of the test set, read for the first page."""
        return trial_page.read_test_texts(self.plan.task, self.plan.spec.data.test_limit)


def is_interrupted(entries: Sequence[Entry], trials: int) -> bool:
    """Return whether a stage was stopped before all its trials ended.

    Args:
        entries: The trials that the stage has started.
        trials: The number of trials of the stage.
    """
    return len(entries) < trials or any(
        entry.status == TrialStatus.INTERRUPTED for entry in entries
    )
