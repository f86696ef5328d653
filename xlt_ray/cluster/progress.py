"""The callback that shows a running search on the terminal; a stage passes it to `run_tune`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ray.tune import Callback
from rich.console import Console

from xlt_ray.cluster.recording import failure_reason
from xlt_ray.cluster.tune import DriverOnly
from xlt_ray.names import OBJECTIVE, ZERO_SHOT_ACCURACY
from xlt_ray.search.budget import Outlook
from xlt_ray.search.ledger import Record, is_tested
from xlt_ray.search.summary import short_values
from xlt_ray.search.trials import LABEL, Trial
from xlt_ray.training.faults import WARNINGS

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial


class ShowProgress(DriverOnly, Callback):
    """Prints one line for each evaluation: the trial, its progress and its score.

    Args:
        console: Where to print.
        trials: Total number of trials.
        objective: Name of the dev metric to print.
        search: Whether the trials compete; if so, each line has the trial that leads now,
            baselines included, as in the leaderboard.
        before: Records from before an interruption; their evaluations are not printed again.
        outlook: Estimates time and money; None: neither is printed.
    """

    def __init__(
        self,
        console: Console,
        trials: int,
        objective: str,
        search: bool,
        before: Mapping[str, Record],
        outlook: Outlook | None = None,
    ) -> None:
        self._console = console
        self._trials = trials
        self._objective = objective
        self._search = search
        self._outlook = outlook
        self._started = time.monotonic()
        self._ended = sum(record.ended for record in before.values())
        self._shown = {
            label: record.evaluations[-1]["evaluations"]
            for label, record in before.items()
            if record.evaluations
        }
        # The latest of each trial, as in the leaderboard: with averaged weights it can fall.
        self._scores = {
            label: float(record.evaluations[-1][OBJECTIVE])
            for label, record in before.items()
            if search and record.evaluations
        }
        self._warned: set[tuple[str, str, float]] = set()

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Print the configuration that starts."""
        started = Trial.from_config(trial.config)
        if self._outlook is not None:
            self._outlook.start(started.label)
        # The label of any other trial says which configuration it is.
        values = f"   {short_values(started.values)}" if started.proposed else ""
        self._line(started.label, f"starts{values}")

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Print an evaluation."""
        label, score = trial.config[LABEL], result[OBJECTIVE]
        for name, text in WARNINGS.items():
            warning = (label, name, result.get(name, 0))
            if name in result and warning not in self._warned:
                self._warned.add(warning)
                self._line(label, f"WARNING  {text}")
        if result["evaluations"] <= self._shown.get(label, 0):
            return  # Printed before, or a checkpoint between two evaluations.
        self._shown[label] = result["evaluations"]
        name = self._objective
        if is_tested(result):
            self._line(
                label,
                f"tested   {100 * result[f'test/{ZERO_SHOT_ACCURACY}']:.1f} % zero-shot mean, "
                f"{100 * result['test/accuracy/mean']:.1f} % over all languages",
            )
            return
        best = ""
        if self._search:
            self._scores[label] = score
            first = max(self._scores, key=self._scores.__getitem__)
            best = f"   best {100 * self._scores[first]:.1f} ({first})"
        self._line(
            label,
            f"step {result['step']:.0f}/{result['steps']:.0f}   {name} "
            f"{100 * result[name]:.1f}   loss {result['train/loss/total']:.3f}   "
            f"{result['train/examples_per_second']:.0f} examples/s{best}",
        )

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Print how the trial ended."""
        self._ended += 1
        how = "finished" if is_tested(trial.last_result) else "stopped early"
        estimates = ""
        if self._outlook is not None:
            self._outlook.end(trial.config[LABEL])
            estimates = f"   {self._outlook.text()}"
        done = f"{how}   {self._ended} of {self._trials} trials done"
        self._line(trial.config[LABEL], f"{done}{estimates}".rstrip())

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Print why the trial failed."""
        self._ended += 1
        if self._outlook is not None:
            self._outlook.end(trial.config[LABEL], failed=True)
        reason = (trial.error_file and failure_reason(trial.error_file)) or "unknown error"
        self._line(trial.config[LABEL], f"FAILED   {reason}")

    def _line(self, label: str, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        self._console.print(
            f"[{minutes:3d}:{seconds:02d}] {label:>6}  {text}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
