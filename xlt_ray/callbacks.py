"""What happens while a search runs: trials are recorded in MLflow and shown on the terminal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune import Callback
from rich.console import Console

from xlt_ray.faults import WARNINGS
from xlt_ray.plan import BASELINES, Plan, parameters_of
from xlt_ray.spec import OBJECTIVE, dump_spec
from xlt_ray.trial import LABEL, trial_spec, trial_values

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

    from xlt_ray.tracking import Recorder

_RECORDED = ("train/", "dev/", "selected/", "test/", "time/", "faults/", OBJECTIVE)


def short_values(config: dict[str, Any]) -> str:
    """A configuration in a few words: the last names of its keys and their values."""
    shown = []
    for key, value in trial_values(config).items():
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        shown.append(f"{key.rpartition('.')[2]}={'none' if value is None else text}")
    return " ".join(shown)


_live: dict[str, Callback] = {}


def _live_callback(name: str) -> Callback:
    return _live[name]


class _DriverCallback(Callback):
    """A callback that lives in the driver and nowhere else.

    Tune writes its callbacks into the search's state and reads them back when a search is
    resumed; what it then gets is the resuming driver's callback, not the ghost of the old one.
    """

    def __init__(self) -> None:
        _live[type(self).__name__] = self

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return _live_callback, (type(self).__name__,)


class RecordTrials(_DriverCallback):
    """Records every trial as a child run.

    Args:
        recorder: Where to.
        plan: The search.
        tags: Tags of every trial.
        journal: File that keeps which trials have ended, also from before a search was resumed:
            Tune's own state does not tell a trial that was stopped early from one that was under
            way when the search was interrupted.
    """

    def __init__(self, recorder: Recorder, plan: Plan, tags: dict[str, str], journal: Path) -> None:
        super().__init__()
        self._recorder = recorder
        self._plan = plan
        self._tags = tags
        self._journal = journal
        self.ended: set[str] = set()
        """Labels of the trials that ended, well or not."""
        if journal.exists():
            self.ended.update(journal.read_text(encoding="utf-8").split())
            self._rewrite_journal()

    def _rewrite_journal(self) -> None:
        lines = (f"{label}\n" for label in sorted(self.ended))
        self._journal.write_text("".join(lines), encoding="utf-8")

    def _note_end(self, label: str) -> None:
        self.ended.add(label)
        # A line more, so that a search's thousandth trial costs what its first did.
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(f"{label}\n")

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Open the trial's run."""
        label = trial.config[LABEL]
        if label in self.ended:
            # A failed trial of an earlier attempt starts again.
            self.ended.discard(label)
            self._rewrite_journal()
        spec = trial_spec(self._plan.spec, trial.config)
        self._recorder.start_trial(
            label,
            f"{label} {short_values(trial.config)}" if label.isdigit() else label,
            parameters_of(spec),
            self._tags | {"method": spec.method.name, "trial": label},
        )
        self._recorder.log_text(label, dump_spec(spec), "spec.yaml")

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Record an evaluation's metrics."""
        metrics = {key: value for key, value in result.items() if key.startswith(_RECORDED)}
        self._recorder.log_metrics(trial.config[LABEL], metrics, step=result["step"])

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Close the run; a trial without test scores was stopped early."""
        label = trial.config[LABEL]
        self._note_end(label)
        finished = "test/accuracy/mean" in trial.last_result
        self._recorder.set_tags(label, {"status": "finished" if finished else "pruned"})
        self._recorder.end_trial(label, "FINISHED" if finished else "KILLED")

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Close the run of a trial that failed."""
        label = trial.config[LABEL]
        self._note_end(label)
        self._recorder.set_tags(label, {"status": "failed"})
        self._recorder.end_trial(label, "FAILED")


class ShowProgress(_DriverCallback):
    """Prints a line for each evaluation: the trial, its progress and score.

    Args:
        console: Where to.
        trials: How many trials there will be.
        objective: The metric that is shown.
        search: Whether the trials compete, so that the best so far is of interest.
    """

    def __init__(self, console: Console, trials: int, objective: str, search: bool) -> None:
        super().__init__()
        self._console = console
        self._trials = trials
        self._objective = objective
        self._search = search
        self._started = time.monotonic()
        self._ended = 0
        self._best: tuple[float, str] | None = None
        self._warned: set[tuple[str, str, float]] = set()

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Say which configuration starts."""
        label = trial.config[LABEL]
        # Of the methods that are run for comparison the name says all.
        self._line(label, f"starts   {short_values(trial.config)}" if label.isdigit() else "starts")

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Show an evaluation."""
        label, score = trial.config[LABEL], result[OBJECTIVE]
        for name, text in WARNINGS.items():
            warning = (label, name, result.get(name, 0))
            if name in result and warning not in self._warned:
                self._warned.add(warning)
                self._line(label, f"WARNING  {text}")
        if "test/accuracy/mean" in result:
            self._line(
                label,
                f"tested   {100 * result['test/accuracy/zero_shot_mean']:.1f} % zero-shot mean, "
                f"{100 * result['test/accuracy/mean']:.1f} % over all languages",
            )
            return
        if self._search and label not in BASELINES:
            self._best = max(self._best or (score, label), (score, label), key=lambda best: best[0])
        best = "" if self._best is None else f"   best {100 * self._best[0]:.1f} ({self._best[1]})"
        name = self._objective
        self._line(
            label,
            f"step {result['step']:.0f}/{result['steps']:.0f}   {name} "
            f"{100 * result[name]:.1f}   loss {result['train/loss/total']:.3f}   "
            f"{result['train/examples_per_second']:.0f} examples/s{best}",
        )

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Say how the trial ended."""
        self._ended += 1
        finished = "test/accuracy/mean" in trial.last_result
        how = "finished" if finished else "stopped early"
        self._line(trial.config[LABEL], f"{how}   {self._ended} of {self._trials} trials done")

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Say that and why the trial failed."""
        self._ended += 1
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


def failure_reason(path: str) -> str:
    """Why a trial failed, in a line: the last one of its error file, which names the error."""
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    if any("node running low on memory" in line for line in lines):
        # Ray goes on for a page, with settings of its own at the end.
        return (
            "the machine ran out of memory, so Ray ended the trial's worker; run fewer trials "
            "side by side (--max-concurrent) or lower training.micro_batch_tokens"
        )
    return lines[-1] if lines else ""
