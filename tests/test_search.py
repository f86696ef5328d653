"""Which configurations are proposed, and that what is compared with is never stopped."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from xlt_ray.plan import BASELINES
from xlt_ray.search import Pruner, Sampler, suggest_values
from xlt_ray.spec import OBJECTIVE, SearchSpec

KINDS = ["synonym", "random", "adversarial"]
SPACE: dict[str, dict[str, Any]] = {
    "method.push_margin": {"distribution": "uniform", "low": 0.1, "high": 0.5},
    "method.view.radius": {"distribution": "uniform", "low": 0.2, "high": 1.0},
    "method.view.noise_radius": {"distribution": "log_uniform", "low": 0.05, "high": 2.0},
    "method.view.ascent_steps": {"distribution": "int", "low": 1, "high": 3},
    "training.learning_rate": {"distribution": "log_uniform", "low": 1e-5, "high": 1e-4},
    # Last: that it is drawn first does not depend on the file.
    "method.view.kind": {"distribution": "categorical", "choices": KINDS},
}
DRAWN_FROM = {
    "method.push_margin": FloatDistribution(0.1, 0.5),
    "method.view.radius": FloatDistribution(0.2, 1.0),
    "method.view.noise_radius": FloatDistribution(0.05, 2.0, log=True),
    "method.view.ascent_steps": IntDistribution(1, 3),
    "training.learning_rate": FloatDistribution(1e-5, 1e-4, log=True),
    "method.view.kind": CategoricalDistribution(KINDS),
}
ALWAYS = {"method.push_margin", "training.learning_rate", "method.view.kind"}
DRAWN = {
    "synonym": ALWAYS | {"method.view.radius"},
    "random": ALWAYS | {"method.view.noise_radius"},
    "adversarial": ALWAYS | {"method.view.noise_radius", "method.view.ascent_steps"},
}
"""Parameters that exist with each kind of view."""
FIXED = [{"label": "paper", "method.name": "ear"}, {"label": "plain", "method.name": "plain"}]


def spec_of(
    parameters: dict[str, Any], method: dict[str, Any] | None = None, **search: Any
) -> SearchSpec:
    return SearchSpec.model_validate(
        {
            "name": "any",
            "task": "demo",
            "model": "some/encoder",
            "method": method or {},
            "search": {"parameters": parameters, **search},
        }
    )


@pytest.fixture
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def test_only_what_the_kind_of_view_uses_is_drawn(study: optuna.Study) -> None:
    spec = spec_of(SPACE)
    kinds = set()
    for _ in range(40):
        trial = study.ask()
        suggest_values(spec, trial)
        kind = trial.params["method.view.kind"]
        kinds.add(kind)
        assert set(trial.params) == DRAWN[kind]
        assert trial.distributions == {key: DRAWN_FROM[key] for key in trial.params}
    assert kinds == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_all_is_drawn_where_nothing_depends_on_the_kind(study: optuna.Study, kind: str) -> None:
    keys = DRAWN[kind] - {"method.view.kind"}
    spec = spec_of({key: SPACE[key] for key in keys}, {"view": {"kind": kind}})
    trial = study.ask()
    suggest_values(spec, trial)
    assert set(trial.params) == keys


def test_a_method_with_views_of_its_own_draws_their_values(study: optuna.Study) -> None:
    keys = {"method.view.noise_radius", "method.robust_weight"}
    parameters = SPACE | {"method.robust_weight": {"distribution": "int", "low": 1, "high": 2}}
    # The kind in `method.view` is that of other methods.
    method = {"name": "rs-rp", "view": {"kind": "synonym"}}
    trial = study.ask()
    suggest_values(spec_of({key: parameters[key] for key in keys}, method), trial)
    assert set(trial.params) == keys


def score(config: dict[str, Any]) -> float:
    """Some smooth objective over the whole space."""
    kind = KINDS.index(config["method.view.kind"])
    return 0.2 * kind - (config["method.push_margin"] - 0.3) ** 2


def finish(sampler: Sampler, trial_id: str, value: float) -> None:
    result = {OBJECTIVE: value, "training_iteration": 1}
    sampler.on_trial_result(trial_id, result)
    sampler.on_trial_complete(trial_id, result)


def proposals(sampler: Sampler, count: int, first: int = 0) -> list[dict[str, Any]]:
    """Let the sampler propose some trials, and tell it how they ended."""
    configs = []
    for number in range(first, first + count):
        config = sampler.suggest(f"trial{number}")
        assert config is not None
        configs.append(config)
        finish(sampler, f"trial{number}", score(config))
    return configs


@pytest.mark.parametrize("sampler_name", ["tpe", "random"])
def test_fixed_configurations_come_first_and_then_numbered_proposals(sampler_name: str) -> None:
    sampler = Sampler(spec_of(SPACE, sampler={"name": sampler_name, "startup_trials": 3}), FIXED)
    for number, expected in enumerate(FIXED):
        assert sampler.suggest(f"fixed{number}") == expected
        # No point of the space: Optuna would refuse to learn of it.
        finish(sampler, f"fixed{number}", 0.9)
    configs = proposals(sampler, 12)
    assert [config.pop("label") for config in configs] == [f"{n:02d}" for n in range(1, 13)]
    for config in configs:
        assert set(config) == DRAWN[config["method.view.kind"]]
        for key, value in config.items():
            assert DRAWN_FROM[key]._contains(DRAWN_FROM[key].to_internal_repr(value))
    assert len({config["method.push_margin"] for config in configs}) == 12


def test_the_search_s_seed_decides_the_proposals() -> None:
    one, same, other = (
        proposals(Sampler(spec_of(SPACE, seed=seed, sampler={"startup_trials": 3}), []), 6)
        for seed in (1, 1, 2)
    )
    assert one == same != other


@pytest.mark.parametrize("sampler_name", ["tpe", "random"])
@pytest.mark.parametrize("told", [1, 8])
def test_a_restored_sampler_goes_on_as_the_saved_one(
    tmp_path: Path, sampler_name: str, told: int
) -> None:
    spec = spec_of(SPACE, sampler={"name": sampler_name, "startup_trials": 3})
    sampler = Sampler(spec, FIXED)
    assert [sampler.suggest("fixed0"), sampler.suggest("fixed1")] == FIXED
    proposals(sampler, told)
    running = sampler.suggest("running")
    assert running is not None
    sampler.save(str(tmp_path / "sampler.pkl"))

    restored = Sampler(spec, FIXED)
    restored.restore(str(tmp_path / "sampler.pkl"))
    for each in (sampler, restored):
        # Trials of before the interruption end after it.
        finish(each, "fixed1", 0.9)
        finish(each, "running", score(running))
    expected = proposals(sampler, 6, first=told)
    assert proposals(restored, 6, first=told) == expected
    assert expected[0]["label"] == f"{told + 2:02d}"


def test_a_restored_sampler_has_the_fixed_configurations_left(tmp_path: Path) -> None:
    spec = spec_of(SPACE)
    sampler = Sampler(spec, FIXED)
    sampler.suggest("fixed0")
    sampler.save(str(tmp_path / "sampler.pkl"))
    restored = Sampler(spec, FIXED)
    restored.restore(str(tmp_path / "sampler.pkl"))
    finish(restored, "fixed0", 0.5)
    assert restored.suggest("fixed1") == FIXED[1]
    after = restored.suggest("first")
    assert after is not None and after["label"] == "01"


def test_a_search_without_parameters_has_only_fixed_configurations() -> None:
    fixed = [{"label": "config"}, *FIXED[1:]]
    sampler = Sampler(spec_of({}), fixed)
    assert [sampler.suggest("a"), sampler.suggest("b")] == fixed


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
