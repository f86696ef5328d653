"""One stage of a search: its trials, run or resumed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from xlt_ray.cluster.connection import offered
from xlt_ray.errors import in_one_line
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.files import relative
from xlt_ray.search import leaderboard
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.plan import Plan
from xlt_ray.search.trials import Trial
from xlt_ray.storage import filesystem
from xlt_ray.tracking.descriptions import run_name
from xlt_ray.tracking.recorder import Recorder

if TYPE_CHECKING:
    from xlt_ray.data.labelled import Examples


@dataclass(frozen=True)
class SearchRun:
    """What the stages of one search share."""

    plan: Plan
    folder: Path
    storage: str
    recorder: Recorder
    tags: dict[str, str]
    console: Console

    def tell(self, line: str) -> None:
        """Print a line as it is."""
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def stage(
        self,
        fixed: list[Trial],
        trials: int,
        storage: str,
        name: str,
    ) -> list[Entry]:
        """Run a stage's trials, or what is left of them; keep and show the test predictions of
        those that finished."""
        from xlt_ray.cluster.progress import ShowProgress
        from xlt_ray.cluster.recording import RecordTrials
        from xlt_ray.cluster.tune import Stage, run_tune
        from xlt_ray.search.study import Study

        search = name == self.folder.name
        folder = self.folder if search else self.folder / name
        folder.mkdir(exist_ok=True)
        ledger = Ledger(folder / "trials.jsonl")
        ledger.begin(self.plan.spec.model_dump(mode="json"))
        study = Study(self.plan.spec, folder / "study.log" if search else None)
        wanted = {trial.label for trial in fixed}
        before = sum(record.ended for record in ledger.records.values())
        concurrent = offered().concurrent_trials(self.plan.spec)
        ended = f" ({before} ended before)" if before else ""
        self.console.print(
            f"{trials} trials{ended}, {concurrent} side by side, in {relative(folder)}",
            soft_wrap=True,
        )
        tags = self.tags | {"stage": "search" if search else "comparison"}
        record = RecordTrials(self.recorder, ledger, study, self.plan, tags)
        record.catch_up()
        progress = ShowProgress(
            self.console, trials, self.plan.spec.search.objective, search, ledger.records
        )
        run_tune(
            self.plan,
            fixed,
            trials,
            Stage(study, ledger, concurrent, storage, name),
            callbacks=[record, progress],
        )
        entries = [
            leaderboard.entry_of(record)
            for label, record in ledger.records.items()
            if label in wanted or record.trial.proposed
        ]
        for entry in entries:
            if entry.status == "finished" and entry.checkpoint:
                self._keep_predictions(entry, entry.checkpoint)
        return entries

    def _keep_predictions(self, entry: Entry, checkpoint: str) -> None:
        """Copy a trial's test predictions next to the tables, from wherever the storage is; show
        those that are new."""
        kept = self.folder / "predictions" / f"{entry.label}.npz"
        kept.parent.mkdir(exist_ok=True)
        with filesystem(self.storage).open_input_file(f"{checkpoint}/predictions.npz") as file:
            content = file.read()
        if kept.exists() and kept.read_bytes() == content:
            return
        # First: where the search ends in between, it shows them when it goes on.
        self._show_predictions(entry, content)
        kept.write_bytes(content)

    def _show_predictions(self, entry: Entry, content: bytes) -> None:
        """Give MLflow a trial's page; whatever hinders it is told and costs nothing else."""
        from xlt_ray.report import trial_page

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
        """The texts of the test set, read when the first trial is shown."""
        from xlt_ray.report import trial_page

        return trial_page.read_test_texts(self.plan.task, self.plan.spec.data.test_limit)
