"""Which configurations are proposed, and that what is compared with is never stopped."""

from __future__ import annotations

from ray.tune.search import Searcher

from tests.support.search_results import SPACE, spec_of
from xlt_ray.cluster.tune import Sampler
from xlt_ray.names import OBJECTIVE
from xlt_ray.search.study import Study
from xlt_ray.search.trials import Trial

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


def test_no_trial_starts_when_the_budget_is_used_but_a_resumed_one_continues() -> None:
    study, reasons = Study(spec_of(SPACE)), [None, None, "used", "used"]
    waiting = [*FIXED, Trial.of_method("rs-da")]
    sampler = Sampler(study, waiting, lambda: reasons.pop(0), resumed={"rs-da"})
    found = [sampler.suggest(f"trial{number}") for number in range(4)]
    assert found == [*(trial.to_config() for trial in waiting), Searcher.FINISHED]
    assert study.proposed == 0
