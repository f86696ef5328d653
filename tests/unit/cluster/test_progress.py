"""The lines that a running search prints."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from xlt_ray.cluster.progress import ShowProgress
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.budget import Outlook
from xlt_ray.search.ledger import Record
from xlt_ray.search.trials import Trial


def trial(
    label: str, result: Mapping[str, Any] | None = None, values: Mapping[str, Any] | None = None
) -> Any:
    """A trial as Tune passes it to callbacks."""
    config = Trial.labelled(label, values).to_config()
    return SimpleNamespace(config=config, last_result=result or {}, error_file=None)


def evaluation(number: int, score: float) -> dict[str, Any]:
    progress = {"evaluations": number, "step": 5 * number, "steps": 10}
    losses = {"train/loss/total": 0.75, "train/examples_per_second": 20.0}
    return {**progress, **losses, OBJECTIVE: score, "dev/accuracy/en": score}


class Screen:
    """A search's progress, and the lines that it printed, without their times."""

    def __init__(self, before: Mapping[str, Record] | None = None) -> None:
        self._text = io.StringIO()
        console = Console(file=self._text, width=200)
        self.shown = ShowProgress(console, 3, "dev/accuracy/en", True, before or {})

    @property
    def lines(self) -> list[str]:
        return [line.partition("]")[2].strip() for line in self._text.getvalue().splitlines()]


def test_a_trial_from_start_to_end() -> None:
    screen = Screen()
    screen.shown.on_trial_start(0, [], trial("01", values={"method.push_margin": 0.25}))
    screen.shown.on_trial_result(0, [], trial("01"), evaluation(1, 0.5))
    tested = {"test/accuracy/mean": 0.75, "test/accuracy/zero_shot_mean": 0.5}
    screen.shown.on_trial_result(0, [], trial("01"), evaluation(2, 0.5) | tested)
    screen.shown.on_trial_complete(0, [], trial("01", tested))
    assert screen.lines == [
        "01  starts   push_margin=0.25",
        "01  step 5/10   dev/accuracy/en 50.0   loss 0.750   20 examples/s   best 50.0 (01)",
        "01  tested   50.0 % zero-shot mean, 75.0 % over all languages",
        "01  finished   1 of 3 trials done",
    ]


def test_a_baseline_can_be_the_best_as_in_the_leaderboard() -> None:
    screen = Screen()
    screen.shown.on_trial_start(0, [], trial("plain", values={"method.name": "plain"}))
    screen.shown.on_trial_result(0, [], trial("01"), evaluation(1, 0.5))
    screen.shown.on_trial_result(0, [], trial("plain"), evaluation(1, 0.9))
    screen.shown.on_trial_result(0, [], trial("02"), evaluation(1, 0.6))
    assert screen.lines[0] == "plain  starts"
    ends = [line.partition("/s")[2].strip() for line in screen.lines[1:]]
    assert ends == ["best 50.0 (01)", "best 90.0 (plain)", "best 90.0 (plain)"]


def test_a_trial_whose_score_falls_leads_no_longer() -> None:
    """With averaged weights the score is that of the mean so far."""
    screen = Screen()
    for label, number, score in (("plain", 1, 0.9), ("01", 1, 0.8), ("plain", 2, 0.7)):
        screen.shown.on_trial_result(0, [], trial(label), evaluation(number, score))
    assert screen.lines[-1].endswith("best 80.0 (01)")


def test_the_best_from_before_an_interruption_counts() -> None:
    screen = Screen({"01": Record(Trial.labelled("01"), evaluations=[evaluation(2, 0.75)])})
    screen.shown.on_trial_result(0, [], trial("02"), evaluation(1, 0.5))
    assert screen.lines[0].endswith("best 75.0 (01)")


@pytest.mark.parametrize("known", [1, 2])
def test_evaluations_from_before_an_interruption_are_not_shown_again(known: int) -> None:
    record = Record(Trial.labelled("01"), evaluations=[evaluation(known, 0.5)])
    screen = Screen({"01": record})
    for number in (1, 2, 3):
        screen.shown.on_trial_result(0, [], trial("01"), evaluation(number, 0.5))
    assert len(screen.lines) == 3 - known


def test_a_failure_says_why(tmp_path: Path) -> None:
    screen = Screen()
    failed = trial("01")
    screen.shown.on_trial_error(0, [], failed)
    failed.error_file = str(tmp_path / "error.txt")
    Path(failed.error_file).write_text("Traceback\nValueError: [no] reason\n")
    screen.shown.on_trial_error(0, [], failed)
    assert screen.lines == ["01  FAILED   unknown error", "01  FAILED   ValueError: [no] reason"]


def test_estimates_follow_a_trial_s_end() -> None:
    text, now = io.StringIO(), iter([0.0, 120.0, 120.0])
    outlook = Outlook(3, 1, {}, price_per_hour=30.0, clock=lambda: next(now))
    console = Console(file=text, width=200)
    shown = ShowProgress(console, 3, "dev/accuracy/en", True, {}, outlook)
    shown.on_trial_start(0, [], trial("01"))
    shown.on_trial_complete(0, [], trial("01"))
    assert (
        text.getvalue()
        .splitlines()[-1]
        .endswith(
            "stopped early   1 of 3 trials done   about 4 min left   cost 1.00, about 3.00 in all"
        )
    )
