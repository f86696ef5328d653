"""A trial keeps its label, kind and values through Ray Tune's and the ledger's config."""

from __future__ import annotations

import json

import pytest

from xlt_ray.config.loading import load_spec
from xlt_ray.config.spec import SearchSpec
from xlt_ray.search.trials import (
    BASELINES,
    FIXED_TRIAL,
    LABELS,
    Trial,
    TrialKind,
    TrialStatus,
    seed_label,
)


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("01", TrialKind.PROPOSED),
        ("1234", TrialKind.PROPOSED),
        ("paper", TrialKind.PAPER),
        ("plain", TrialKind.BASELINE),
        ("plain-long", TrialKind.BASELINE),
        ("ear-no-push", TrialKind.BASELINE),
        ("config", TrialKind.CONFIG),
        ("soup", TrialKind.SOUP),
        ("soup-greedy", TrialKind.SOUP),
        ("soup-rs-da", TrialKind.SOUP),
        ("soups", TrialKind.CONFIG),
        ("best-seed8", TrialKind.COMPARISON),
        ("plain-seed12", TrialKind.COMPARISON),
        ("plain-long-seed8", TrialKind.COMPARISON),
    ],
)
def test_label_tells_the_kind_and_a_config_keeps_both(label: str, kind: TrialKind) -> None:
    trial = Trial.from_config({"label": label, "training.seed": 3})
    assert trial == Trial(label, kind, {"training.seed": 3})
    assert trial.to_config() == {"label": label, "training.seed": 3}
    assert Trial.from_config(json.loads(json.dumps(trial.to_config()))) == trial
    assert trial.proposed == (kind is TrialKind.PROPOSED)
    assert trial.baseline == (label in BASELINES)
    assert trial.soup == (kind is TrialKind.SOUP)


def test_number_orders_proposals_after_all_other_trials() -> None:
    labels = ["10", "paper", "9", "plain-seed3", "100"]
    trials = sorted(map(Trial.labelled, labels), key=lambda trial: trial.number)
    assert [trial.label for trial in trials] == ["paper", "plain-seed3", "9", "10", "100"]
    assert Trial.proposal(7, {"a": 1}) == Trial("07", TrialKind.PROPOSED, {"a": 1})
    assert Trial.proposal(100, {}).label == "100"


def test_a_seed_replaces_the_own_one_and_leaves_the_trial_alone() -> None:
    own = Trial.labelled("best", {"training.seed": 1, "method.pull_weight": 2.0})
    again = own.with_seed(8)
    assert again.label == seed_label("best", 8) == "best-seed8"
    assert again.kind is TrialKind.COMPARISON
    assert again.values == {"training.seed": 8, "method.pull_weight": 2.0}
    assert own.values["training.seed"] == 1
    assert Trial.from_config(again.to_config()) == again


@pytest.mark.parametrize("name", sorted(LABELS))
def test_trial_of_a_method_runs_that_method(name: str) -> None:
    spec = load_spec("demo")
    trial = Trial.of_method(name)  # type: ignore[arg-type]
    own = trial.spec(spec)
    assert own.method.name == name and not own.search.parameters
    assert trial.kind is (TrialKind.PAPER if name == "ear" else TrialKind.BASELINE)
    assert own.training == spec.training


def test_trial_without_values_runs_the_spec_s_own() -> None:
    spec = load_spec("demo")
    assert FIXED_TRIAL.spec(spec).method == spec.method
    assert FIXED_TRIAL.spec(spec).training == spec.training


def test_the_last_seeds_leave_no_room_for_others_and_need_none() -> None:
    """A worker validates the spec of its trial again, which may have one of the fresh seeds."""
    fresh = {"search.comparison_seeds": 3, "training.seed": 2**32 - 4}
    spec = load_spec("demo", fresh)
    for seed in (2**32 - 3, 2**32 - 2, 2**32 - 1):
        own = FIXED_TRIAL.with_seed(seed).spec(spec)
        again = SearchSpec.model_validate(own.model_dump(mode="json"))
        assert again == own and again.training.seed == seed
    confirmed = {"search.confirmation.seeds": 1, "training.seed": 2**32 - 10_002}
    own = FIXED_TRIAL.with_seed(2**32 - 1).spec(load_spec("demo", confirmed))
    assert SearchSpec.model_validate(own.model_dump(mode="json")) == own


def test_trials_are_values() -> None:
    one, same = Trial.proposal(1, {"a": [1]}), Trial.proposal(1, {"a": [1]})
    assert one == same and hash(one) == hash(same) and len({one, same}) == 1
    assert one != Trial.proposal(1, {"a": [2]})


def test_status_is_its_word_in_files_and_tables() -> None:
    assert json.dumps(TrialStatus.PRUNED) == '"pruned"'
    assert f"{TrialStatus.FAILED}" == "failed"
    assert [TrialStatus(status.value) for status in TrialStatus] == list(TrialStatus)
    with pytest.raises(ValueError, match="lost"):
        TrialStatus("lost")
