"""When a search starts no more trials, and its estimates on hand-worked numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xlt_ray.config.spec import SearchSettings
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.budget import Outlook, budget_reached, in_words
from xlt_ray.search.ledger import Ledger, Record
from xlt_ray.search.trials import Trial, TrialStatus


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def settings(**limits: Any) -> SearchSettings:
    return SearchSettings.model_validate({"parameters": {}, **limits})


def evaluated(ledger: Ledger, label: str, objective: float, finished: bool) -> None:
    ledger.start(Trial.labelled(label))
    progress = {"evaluations": 1, "step": 5, "steps": 5, OBJECTIVE: objective}
    ledger.evaluated(label, progress | ({"test/accuracy/mean": 0.5} if finished else {}))


def test_no_limits_are_never_reached(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "trials.jsonl")
    evaluated(ledger, "01", 1.0, finished=True)
    assert budget_reached(settings(), ledger) is None


def test_the_first_trial_starts_in_any_case(tmp_path: Path) -> None:
    clock = Clock()
    ledger = Ledger(tmp_path / "trials.jsonl", clock)
    ledger.begin({"name": "any"})
    clock.now += 10
    assert budget_reached(settings(time_budget="1s"), ledger) is None
    ledger.start(Trial.labelled("paper"))
    assert budget_reached(settings(time_budget="1s"), ledger) is not None


def test_the_time_budget_counts_earlier_runs_but_not_the_time_between(tmp_path: Path) -> None:
    limit, file, clock = settings(time_budget="2m"), tmp_path / "trials.jsonl", Clock()
    first = Ledger(file, clock)
    first.begin({"name": "any"})
    clock.now += 70
    evaluated(first, "01", 0.5, finished=True)
    clock.now += 40  # lost: the process is killed before its next event
    assert budget_reached(limit, first) is None
    again = Ledger(file, clock)
    assert again.elapsed == 70
    clock.now += 10_000
    again = Ledger(file, clock)
    again.begin({"name": "any"})
    clock.now += 49
    assert budget_reached(limit, again) is None
    clock.now += 1
    assert budget_reached(limit, again) == "the time budget of 2m is used up"
    assert budget_reached(settings(time_budget="1h"), again) is None


def test_the_target_is_reached_by_a_finished_trial_only(tmp_path: Path) -> None:
    ledger, limit = Ledger(tmp_path / "trials.jsonl"), settings(target=0.8)
    evaluated(ledger, "01", 0.79, finished=True)
    evaluated(ledger, "02", 0.95, finished=False)
    assert budget_reached(limit, ledger) is None
    evaluated(ledger, "03", 0.8, finished=True)
    assert budget_reached(limit, ledger) == "trial 03 has 0.8000, the target is 0.8"


def test_the_rest_is_what_ended_trials_took() -> None:
    clock = Clock()
    outlook = Outlook(5, 2, {}, price_per_hour=4.0, clock=clock)
    outlook.start("01")
    outlook.start("02")
    assert outlook.text() == ""
    clock.now += 1800
    outlook.end("01")
    # 4 are left: 02 has run as long as a trial takes, 3 are to start: 3 x 30 min over 2.
    # Cost: 2 trials x 30 min x 4 an hour, and 3 more.
    assert outlook.text() == "about 45 min left   cost 4.00, about 10.00 in all"
    outlook.start("03")
    clock.now += 900
    outlook.end("02", failed=True)
    # It failed after 45 min, and a trial still takes 30: half of 03, and 2 more, over 2.
    assert outlook.text() == "about 38 min left   cost 6.00, about 11.00 in all"


def test_without_a_price_there_is_no_cost_and_at_the_end_nothing_is_left() -> None:
    clock = Clock()
    outlook = Outlook(1, 1, {}, clock=clock)
    outlook.start("01")
    clock.now += 60
    outlook.end("01")
    assert outlook.text() == ""


def test_a_time_budget_limits_the_rest_to_it_and_one_trial() -> None:
    clock = Clock()
    left = Outlook(100, 1, {}, price_per_hour=1.0, seconds_left=lambda: 3000.0, clock=clock)
    left.start("01")
    clock.now += 600
    left.end("01")
    assert left.text() == "about 1 h 0 min left   cost 0.17, about 1.17 in all"


def test_after_the_time_budget_only_running_trials_are_left() -> None:
    clock = Clock()
    outlook = Outlook(100, 2, {}, price_per_hour=1.0, seconds_left=lambda: -5.0, clock=clock)
    outlook.start("01")
    clock.now += 1000
    outlook.start("02")
    clock.now += 800
    outlook.end("01")  # after 30 min; 02 has run 800 s of them
    assert outlook.text() == "about 17 min left   cost 0.72, about 1.00 in all"
    outlook.end("02")
    assert outlook.text() == "cost 0.72"


def test_earlier_runs_of_a_resumed_search_count() -> None:
    clock = Clock()
    before = {
        "01": Record(Trial.labelled("01"), TrialStatus.FINISHED, {"time_total_s": 3600.0}),
        "02": Record(Trial.labelled("02"), metrics={"time_total_s": 2400.0}),
    }
    outlook = Outlook(3, 1, before, price_per_hour=6.0, clock=clock)
    outlook.start("02")
    # 02 has 20 of its 60 min to go, 03 all of them; 100 min are paid.
    assert outlook.text() == "about 1 h 20 min left   cost 10.00, about 18.00 in all"
    clock.now += 1200
    outlook.end("02")
    assert outlook.text() == "about 1 h 0 min left   cost 12.00, about 18.00 in all"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.4, "4 s"), (90, "2 min"), (3600, "1 h 0 min"), (7_500, "2 h 5 min"), (180_000, "2 d 2 h")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
