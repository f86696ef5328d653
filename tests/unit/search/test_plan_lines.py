"""The plan of a search as the terminal shows it."""

from __future__ import annotations

from tests.support.core_toy import Toy
from tests.unit.search.test_plan import SEARCH, plan_of
from xlt_ray.search.plan_lines import describe


def test_description_says_what_will_run(toy: Toy) -> None:
    searched = dict(describe(plan_of(toy, SEARCH)))
    assert "en -> de" in searched["task"]
    assert "2 layers" in searched["model"] and "bert" in searched["model"]
    assert "96 training, 60 dev, 84 test" in searched["data"]
    assert searched["trials"] == "7 and plain" and "comparison" not in searched
    assert "method.push_margin (uniform)" in searched["searched"]
    assert searched["a trial"].startswith("6 steps of 16, 1 dev")
    fixed = dict(describe(plan_of(toy, {"search.num_trials": 7})))
    assert fixed["trials"] == "1 and plain"
    targets = plan_of(toy, {"search.objective": "dev/accuracy/zero_shot_mean"})
    assert "target-language dev labels" in dict(describe(targets))["objective"]
    virtual = plan_of(toy, {"search.objective": "dev/accuracy/en_virtual"})
    for described in (searched, dict(describe(virtual))):
        assert "target-language" not in described["objective"]


def test_description_of_a_comparison(toy: Toy) -> None:
    changes = {"search.comparison_seeds": 2, "search.baselines": ["adv", "plain", "ear"]}
    described = dict(describe(plan_of(toy, SEARCH | changes)))
    assert described["trials"] == "7 and plain"
    assert described["comparison"] == "the best and adv, plain, paper, 2 seed(s) each"
    alone = plan_of(toy, SEARCH | {"search.comparison_seeds": 2, "search.baselines": []})
    assert dict(describe(alone))["comparison"] == "the best, 2 seed(s) each"
    # 6 steps of 16 texts: with views 7 trials, and 3 methods with 2 seeds; plain 1 + 2 times.
    assert "2,784 texts trained on" in described["work"]


def test_description_of_a_confirmation_names_who_can_be_in_it(toy: Toy) -> None:
    changes = SEARCH | {"search.confirmation": {"top": 2, "seeds": 3}, "search.soups": False}
    with_plain = plan_of(toy, changes | {"search.baselines": ["plain", "adv"]})
    assert dict(describe(with_plain))["confirmation"] == "plain, the best 2, 3 seed(s) each"
    without = plan_of(toy, changes | {"search.baselines": ["adv"], "search.soups": True})
    assert dict(describe(without))["confirmation"] == (
        "the best 2 and the best soup with all its members, 3 seed(s) each"
    )
