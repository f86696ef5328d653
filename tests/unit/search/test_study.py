"""What a study proposes, and that it goes on as if its process had not been killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tests.support.search_results import spec_of
from xlt_ray.search.study import Study, suggest_values
from xlt_ray.search.trials import Trial

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


NAMES = ["plain", "rs-da", "rs-rp", "ear"]
BRANCHES: dict[str, dict[str, Any]] = {
    key: distribution for key, distribution in SPACE.items() if key != "method.view.kind"
} | {
    "method.pull_weight": {"distribution": "log_uniform", "low": 0.1, "high": 100.0},
    "method.view.kind": {"distribution": "categorical", "choices": ["synonym", "adversarial"]},
    "method.name": {"distribution": "categorical", "choices": NAMES},
}
SHARED = {"method.name", "training.learning_rate"}
OF_EAR = SHARED | {"method.view.kind", "method.push_margin", "method.pull_weight"}
OF_BRANCH = {
    ("plain", None): SHARED,
    ("rs-da", None): SHARED | {"method.view.radius"},
    ("rs-rp", None): SHARED | {"method.view.noise_radius"},
    ("ear", "synonym"): OF_EAR | {"method.view.radius"},
    ("ear", "adversarial"): OF_EAR | {"method.view.noise_radius", "method.view.ascent_steps"},
}
"""Parameters that exist with each method and searched kind of view."""


def branch(values: dict[str, Any]) -> tuple[str, str | None]:
    return values["method.name"], values.get("method.view.kind")


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


@pytest.mark.parametrize("reverse", [False, True])
def test_only_what_the_method_uses_is_drawn(study: optuna.Study, reverse: bool) -> None:
    """Whatever the order of the keys in the file."""
    keys = sorted(BRANCHES, reverse=reverse)
    spec = spec_of({key: BRANCHES[key] for key in keys})
    branches = set()
    for _ in range(60):
        trial = study.ask()
        suggest_values(spec, trial)
        branches.add(branch(trial.params))
        assert set(trial.params) == OF_BRANCH[branch(trial.params)]
        method = Trial.proposal(1, trial.params).spec(spec).method
        assert method.name == trial.params["method.name"]
        keys_of_method = [key for key in trial.params if key.startswith("method.")]
        assert all(method.uses(key.removeprefix("method.")) for key in keys_of_method)
    assert branches == set(OF_BRANCH)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_every_proposal_over_methods_has_the_keys_of_its_branch(sampler: str) -> None:
    spec = spec_of(BRANCHES, sampler={"name": sampler, "startup_trials": 4})
    proposals = go_on(Study(spec), 24)
    assert len({branch(values) for values in proposals.values()}) >= 3
    for values in proposals.values():
        assert set(values) == OF_BRANCH[branch(values)]


def test_tpe_finds_the_method_that_is_better() -> None:
    """The score of `rs-da` is the highest, whatever the values of any other branch."""
    spec = spec_of(BRANCHES, sampler={"startup_trials": 8})
    names = [values["method.name"] for values in go_on(Study(spec), 40).values()]
    assert names[20:].count("rs-da") > 10


def score(values: dict[str, Any]) -> float:
    """Some smooth objective over the whole space."""
    value = 0.5 if values.get("method.name") == "rs-da" else 0.0
    value += 0.2 * KINDS.index(values.get("method.view.kind", "synonym"))
    return value - (values.get("method.push_margin", 0.1) - 0.3) ** 2


def go_on(study: Study, count: int) -> dict[str, dict[str, Any]]:
    """Let proposals end, one after the other, until there are so many; return them all.

    Each reports an evaluation before its end.
    """
    proposals = {}

    def run(label: str, values: dict[str, Any]) -> None:
        proposals[label] = values
        study.report(label, score(values) - 0.1, 1)
        study.end(label, score(values))

    for label, values in study.unfinished().items():
        run(label, values)
    while study.proposed < count:
        run(*study.propose())
    return proposals


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_proposals_are_numbered_and_within_the_space(sampler: str) -> None:
    proposals = go_on(Study(spec_of(SPACE, sampler={"name": sampler, "startup_trials": 3})), 12)
    assert list(proposals) == [f"{number:02d}" for number in range(1, 13)]
    for values in proposals.values():
        assert set(values) == DRAWN[values["method.view.kind"]]
        for key, value in values.items():
            assert DRAWN_FROM[key]._contains(DRAWN_FROM[key].to_internal_repr(value))
    assert len({values["method.push_margin"] for values in proposals.values()}) == 12


def test_the_search_s_seed_decides_the_proposals() -> None:
    one, same, other = (
        go_on(Study(spec_of(SPACE, seed=seed, sampler={"startup_trials": 3})), 6)
        for seed in (1, 1, 2)
    )
    assert one == same != other


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("space", [SPACE, BRANCHES], ids=["kinds", "methods"])
def test_a_study_killed_anywhere_goes_on_as_if_it_had_not_been(
    tmp_path: Path, space: dict[str, Any], sampler: str
) -> None:
    """The file is cut after every line, and within one, as a killed process leaves it."""
    spec = spec_of(space, sampler={"name": sampler, "startup_trials": 3})
    whole = tmp_path / "study.log"
    undisturbed = go_on(Study(spec, whole), 7)
    lines = whole.read_bytes().splitlines(keepends=True)
    assert len(lines) > 35
    for kept in range(len(lines)):
        file = tmp_path / f"killed-{kept}.log"
        torn = lines[kept][: len(lines[kept]) // 2] if kept % 2 else b""
        file.write_bytes(b"".join(lines[:kept]) + torn)
        (tmp_path / f"{file.name}.lock").symlink_to(file)
        went_on = go_on(Study(spec, file), 7)
        assert went_on == {label: undisturbed[label] for label in went_on}
        assert Study(spec, file).unfinished() == {}
        assert Study(spec, file).proposed == 7
        final = optuna.load_study(
            study_name="any",
            storage=optuna.storages.JournalStorage(
                optuna.storages.journal.JournalFileBackend(str(file))
            ),
        )
        assert [trial.params for trial in final.trials] == list(undisturbed.values())
        assert [trial.value for trial in final.trials] == list(map(score, undisturbed.values()))


def test_an_end_that_is_told_twice_counts_once() -> None:
    study = Study(spec_of(SPACE))
    label, _ = study.propose()
    study.end(label, 0.5)
    study.end(label, 0.9)
    study.report(label, 0.9, 3)
    assert [trial.value for trial in study._study.trials] == [0.5]


def test_a_failure_teaches_nothing_until_the_proposal_is_tried_again() -> None:
    study = Study(spec_of(SPACE))
    label, values = study.propose()
    study.end(label, None)
    assert study.unfinished() == {}
    study.end(label, 0.7)
    ended = [(trial.state.name, trial.value, trial.params) for trial in study._study.trials]
    assert ended == [("FAIL", None, values), ("COMPLETE", 0.7, values)]
    # The next one is numbered as if nothing had failed.
    assert study.propose()[0] == "02"


def test_a_study_of_a_failure_tried_again_is_read_back(tmp_path: Path) -> None:
    spec = spec_of(SPACE)
    study = Study(spec, tmp_path / "study.log")
    label, _ = study.propose()
    study.end(label, None)
    study.end(label, 0.7)
    expected = study.propose()
    again = Study(spec, tmp_path / "study.log")
    assert again.proposed == 2
    assert again.unfinished() == dict([expected])
