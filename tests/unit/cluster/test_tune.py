"""Which configurations are proposed, and that what is compared with is never stopped."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.search_results import spec_of
from xlt_ray.cluster.pruner import Pruner
from xlt_ray.cluster.tune import Sampler
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.ledger import Ledger
from xlt_ray.search.resume import waiting_trials
from xlt_ray.search.study import Study
from xlt_ray.search.trials import BASELINES, Trial, TrialStatus

SPACE: dict[str, dict[str, Any]] = {
    "method.push_margin": {"distribution": "uniform", "low": 0.1, "high": 0.5},
    "method.view.radius": {"distribution": "uniform", "low": 0.2, "high": 1.0},
}
FIXED = [Trial.of_method("ear"), Trial.of_method("plain")]


def finish(sampler: Sampler, trial_id: str, value: float) -> None:
    result = {OBJECTIVE: value, "evaluations": 1}
    sampler.on_trial_result(trial_id, result)
    sampler.on_trial_complete(trial_id, result)


def test_waiting_configurations_come_first_and_then_numbered_proposals() -> None:
    study = Study(spec_of(SPACE))
    sampler = Sampler(study, FIXED)
    for number, expected in enumerate(FIXED):
        assert sampler.suggest(f"fixed{number}") == expected.to_config()
        # No point of the space: the study would refuse to learn of it.
        finish(sampler, f"fixed{number}", 0.9)
    assert study.proposed == 0
    configs = [sampler.suggest(f"trial{number}") for number in range(3)]
    assert [config["label"] for config in configs] == ["01", "02", "03"]
    assert set(study.unfinished()) == {"01", "02", "03"}
    finish(sampler, "trial1", 0.5)
    assert set(study.unfinished()) == {"01", "03"}


def test_tune_s_word_of_a_failure_is_not_passed_on() -> None:
    """It comes without the reason, on which depends what the study learns."""
    study = Study(spec_of(SPACE))
    sampler = Sampler(study, [])
    sampler.suggest("trial")
    sampler.on_trial_complete("trial", {OBJECTIVE: 0.5, "evaluations": 1}, error=True)
    assert set(study.unfinished()) == {"01"}


def ledger_of(folder: Path, *events: tuple[str, dict[str, Any], list[float], str]) -> Ledger:
    """A ledger of trials: label, values, objectives of their evaluations, how they ended."""
    ledger = Ledger(folder / "trials.jsonl")
    for label, values, objectives, end in events:
        ledger.start(Trial.labelled(label, values))
        for number, objective in enumerate(objectives, 1):
            metrics = {"evaluations": number, OBJECTIVE: objective, "step": number, "steps": 10}
            ledger.evaluated(label, metrics)
        status, _, reason = end.partition(": ")
        if status != "running":
            ledger.end(label, TrialStatus(status), reason)
    return ledger


def test_what_had_not_ended_waits_for_the_search_to_go_on(tmp_path: Path) -> None:
    study = Study(spec_of(SPACE))
    values = dict(study.propose() for _ in range(5))
    ledger = ledger_of(
        tmp_path,
        ("paper", {}, [0.5], "finished"),
        ("01", values["01"], [0.6, 0.7], "pruned"),
        ("02", values["02"], [0.4], "running"),
        ("03", values["03"], [], "failed: ActorDiedError: its node is gone"),
        ("04", values["04"], [0.9], "failed: NonFiniteLoss: the loss term 'push' is nan"),
        # 05 was proposed, and the process ended before it started.
    )
    waiting = waiting_trials(FIXED, study, ledger)
    assert [trial.label for trial in waiting] == ["plain", "02", "03", "05"]
    assert waiting[1] == Trial.proposal(2, values["02"])
    # Of the others the study knows the end, once; of 04 that it was bad.
    assert set(study.unfinished()) == {"02", "05"}
    assert [trial.label for trial in waiting_trials(FIXED, study, ledger)] == [
        "plain",
        "02",
        "03",
        "05",
    ]


def test_files_of_different_moments_lose_no_trial(tmp_path: Path) -> None:
    """Copies of the ledger and the study, each older than the other in some trial."""
    study = Study(spec_of(SPACE))
    values = dict(study.propose() for _ in range(2))
    study.end("01", 0.5)
    ahead = {"method.push_margin": 0.25, "method.view.radius": 0.75}
    ledger = ledger_of(
        tmp_path,
        # 01 has ended according to the study alone.
        ("02", values["02"], [0.6], "finished"),
        ("03", ahead, [0.7], "running"),
    )
    waiting = waiting_trials([], study, ledger)
    assert waiting == [Trial.proposal(1, values["01"]), Trial.proposal(3, ahead)]
    assert study.unfinished() == {"03": ahead}
    assert study.propose()[0] == "04"


def test_a_trial_that_ran_goes_on_with_the_values_that_it_ran_with(tmp_path: Path) -> None:
    study = Study(spec_of(SPACE))
    study.propose()
    ran = {"method.push_margin": 0.25, "method.view.radius": 0.75}
    (trial,) = waiting_trials([], study, ledger_of(tmp_path, ("01", ran, [0.6], "running")))
    assert trial == Trial.proposal(1, ran)


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
    assert len(BASELINES) == 7
    for label in sorted(BASELINES):
        assert decide(pruner, label, 0.9) == "CONTINUE"
    assert decide(pruner, "01", 0.5) == "CONTINUE"
    assert decide(pruner, "02", 0.4) == "STOP"


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
