"""ASHA stops proposals only, and decides after an interruption as it would have without."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.search_results import SPACE, ledger_of, spec_of
from xlt_ray.cluster.pruner import Pruner
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.trials import BASELINES


def decide(pruner: Pruner, label: str, objective: float, step: int = 1) -> str:
    """What the pruner says of a trial's first evaluation."""
    trial: Any = SimpleNamespace(trial_id=label, config={"label": label})
    pruner.on_trial_add(None, trial)
    result = {"evaluations": 1, OBJECTIVE: objective, "step": step, "steps": 10}
    return pruner.on_trial_result(None, trial, result)


def pruner_of(*fixed: str, **stopping: Any) -> Pruner:
    stopping = {"reduction_factor": 2, **stopping}
    return Pruner(spec_of(SPACE, early_stopping=stopping), 4, set(fixed))


def test_baselines_are_not_stopped_and_stop_nobody() -> None:
    pruner = pruner_of("paper", *BASELINES)
    assert len(BASELINES) == 8
    for label in sorted(BASELINES):
        assert decide(pruner, label, 0.9) == "CONTINUE"
    assert decide(pruner, "01", 0.5) == "CONTINUE"
    assert decide(pruner, "02", 0.4) == "STOP"


def test_a_baseline_that_trains_longer_fills_no_later_rung() -> None:
    pruner = pruner_of("plain-long")
    for label, objective, last in (("plain-long", 0.9, 8), ("01", 0.5, 4)):
        trial: Any = SimpleNamespace(trial_id=label, config={"label": label})
        pruner.on_trial_add(None, trial)
        for number in range(1, last + 1):
            result = {"evaluations": number, OBJECTIVE: objective, "step": number, "steps": 10}
            assert pruner.on_trial_result(None, trial, result) == "CONTINUE"


def test_the_first_fixed_trial_is_not_stopped_but_stops_others() -> None:
    pruner = pruner_of("paper", "plain")
    assert decide(pruner, "01", 0.5) == "CONTINUE"
    assert decide(pruner, "paper", 0.4) == "CONTINUE"
    pruner = pruner_of("paper", "plain")
    assert decide(pruner, "paper", 0.9) == "CONTINUE"
    assert decide(pruner, "01", 0.5) == "STOP"


def test_runs_of_a_comparison_are_all_fixed() -> None:
    labels = [f"{name}-seed{seed}" for seed in (8, 9) for name in ("best", "plain", "adv")]
    pruner = pruner_of(*labels)
    for number, label in enumerate(labels):
        assert decide(pruner, label, 0.9 - 0.1 * number) == "CONTINUE"


def test_a_trial_that_has_trained_to_its_end_goes_on_to_its_test() -> None:
    pruner = pruner_of("paper")
    assert decide(pruner, "01", 0.9) == "CONTINUE"
    assert decide(pruner, "02", 0.1, step=10) == "CONTINUE"


def test_nobody_is_stopped_where_early_stopping_is_off() -> None:
    pruner = pruner_of("paper", enabled=False)
    assert [decide(pruner, f"{n:02d}", 0.9 - 0.1 * n) for n in range(1, 5)] == ["CONTINUE"] * 4


def test_a_trial_that_goes_on_meets_the_rungs_of_before(tmp_path: Path) -> None:
    """The rungs of an interrupted search decide as if it had not been interrupted."""
    ledger = ledger_of(
        tmp_path,
        ("01", {}, [0.8], "pruned"),
        ("02", {}, [0.7], "pruned"),
        ("03", {}, [0.6], "running"),
    )
    spec = spec_of(SPACE, early_stopping={"reduction_factor": 2})
    resumed = Pruner(spec, 4, set(), ledger.history)
    for label, score, expected in (("04", 0.65, "STOP"), ("05", 0.75, "CONTINUE")):
        undisturbed = pruner_of()
        for earlier, objective in (("01", 0.8), ("02", 0.7), ("03", 0.6)):
            decide(undisturbed, earlier, objective)
        assert decide(undisturbed, label, score) == decide(resumed, label, score) == expected
        # 05 meets 04's score too, in both.
        resumed = Pruner(spec, 4, set(), ledger.history)


def test_a_stop_that_was_decided_and_not_recorded_stands(tmp_path: Path) -> None:
    spec = spec_of(SPACE, early_stopping={"reduction_factor": 2})
    ledger = ledger_of(tmp_path, ("01", {}, [0.8], "pruned"), ("02", {}, [0.7], "running"))
    assert Pruner(spec, 4, set(), ledger.history).stopped == {"02"}
    # A trial that went on then goes on now, though one that came later is better.
    (tmp_path / "other").mkdir()
    ledger = ledger_of(
        tmp_path / "other", ("01", {}, [0.7], "running"), ("02", {}, [0.8], "running")
    )
    assert Pruner(spec, 4, set(), ledger.history).stopped == set()


def test_a_trial_stands_once_in_a_rung_however_often_it_runs(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, ("01", {}, [0.5], "running"))
    pruner = Pruner(
        spec_of(SPACE, early_stopping={"reduction_factor": 2}), 4, set(), ledger.history
    )
    assert decide(pruner, "01", 0.1) == "CONTINUE"
    assert decide(pruner, "02", 0.4) == "STOP"
