"""The plan of a search: its trials and its work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.core_toy import EXAMPLES, Toy, make_toy
from xlt_ray.config.spec import with_values
from xlt_ray.errors import UserError
from xlt_ray.search.confirmation import confirmation_seeds
from xlt_ray.search.make_plan import make_plan
from xlt_ray.search.plan import Plan, parameters_of
from xlt_ray.search.plan_lines import describe
from xlt_ray.search.trials import Trial, TrialKind


def plan_of(toy: Toy, changes: dict[str, Any] | None = None) -> Plan:
    # One view of each dev text, so that the work is easy to count.
    return make_plan(toy.spec({"data.virtual_views": 1} | (changes or {})))


def complaint(toy: Toy, changes: dict[str, Any]) -> str:
    spec = toy.spec(changes)
    with pytest.raises(UserError) as caught:
        make_plan(spec)
    message = str(caught.value)
    assert "\n" not in message
    return message


SEARCH = {
    "search.parameters": {
        "method.push_margin": {"distribution": "uniform", "low": 0, "high": 0.5},
        "method.pull_layer": {"distribution": "int", "low": 0, "high": 1},
    },
    "search.num_trials": 7,
}


def test_plan_counts_examples_steps_and_evaluations(toy: Toy) -> None:
    plan = plan_of(
        toy,
        SEARCH
        | {
            "data.dev_limit": 10,
            "data.train_limit": 1000,
            "training.epochs": 3,
            "training.batch_size": 20,
            "training.evaluations_per_epoch": 2,
        },
    )
    assert plan.examples == {
        ("train", "en"): EXAMPLES["train"],
        ("dev", "en"): 10,
        ("dev", "de"): 10,
        ("test", "en"): EXAMPLES["test"],
        ("test", "de"): EXAMPLES["test"],
    }
    assert plan.training.steps == 15  # 96 examples are 5 batches of at most 20
    assert plan.evaluations == 6
    assert plan.trials == 8
    assert {"train-en.tsv (train, en)", "the task file"} < plan.inputs.keys()
    assert plan.encoder.layers == 2 and plan.encoder.hidden == 32 and plan.encoder.family == "bert"


def test_first_the_paper_s_setting_then_plain_fine_tuning(toy: Toy) -> None:
    spec = toy.spec(SEARCH | {"method.push_distance": "relative", "method.view.radius": 0.3})
    plan = make_plan(spec)
    paper, plain = plan.fixed_trials()
    assert (paper.label, plain.label) == ("paper", "plain")
    method = with_values(plan.spec, paper.values).method
    assert method.name == "ear"
    assert (method.push_weight, method.push_margin, method.push_distance) == (0.1, None, "absolute")
    assert (method.pull_weight, method.view.radius) == (1.0, "paper")
    assert with_values(plan.spec, plain.values).method.name == "plain"
    assert with_values(plan.spec, plain.values).training == plan.spec.training


EVERY = [
    *("plain", "plain-long", "rs-da", "rs-rp", "adv"),
    *("ear", "ear-no-push", "ear-no-pull", "ear-no-robust"),
]


def labels(trials: list[Trial]) -> list[str]:
    return [trial.label for trial in trials]


def test_every_method_beside_the_search_with_the_paper_s_values(toy: Toy) -> None:
    own = {
        "method.robust_weight": 3.0,
        "method.push_distance": "relative",
        "method.pull_weight": 7.0,
        "method.pull_alignment": "word",
        "method.view.radius": 0.3,
        "method.view.noise_radius": 0.4,
    }
    plan = plan_of(toy, SEARCH | own | {"search.baselines": EVERY})
    paper, plain, long, *others = trials = plan.fixed_trials()
    # `ear` is the paper's setting, which every search begins with.
    assert labels(trials) == ["paper", *(name for name in EVERY if name != "ear")]
    assert plan.trials == 7 + 8
    for trial, name in ((plain, "plain"), (long, "plain-long")):
        assert trial == Trial(name, TrialKind.BASELINE, {"method.name": name})
    for trial in (paper, *others):
        spec = with_values(plan.spec, trial.values)
        method = spec.method
        assert method.name == ("ear" if trial is paper else trial.label)
        assert (method.robust_weight, method.push_weight, method.pull_weight) == (1.0, 0.1, 1.0)
        assert (method.push_margin, method.push_distance) == (None, "absolute")
        assert (method.pull_alignment, method.view.radius) == ("token", "paper")
        # What the paper does not decide stays the spec's.
        assert (method.pull_layer, method.view.noise_radius) == (1, 0.4)
        assert method.view.synonyms == plan.spec.method.view.synonyms
        assert spec.training == plan.spec.training


def test_baselines_are_optional_and_run_once(toy: Toy) -> None:
    alone = plan_of(toy, SEARCH | {"search.baselines": []})
    assert labels(alone.fixed_trials()) == ["paper"] and alone.trials == 7
    twice = plan_of(toy, SEARCH | {"search.baselines": ["adv", "ear", "plain", "adv"]})
    assert labels(twice.fixed_trials()) == ["paper", "adv", "plain"] and twice.trials == 9


def test_spec_without_search_is_run_as_it_is(toy: Toy) -> None:
    fixed = plan_of(toy, {"search.num_trials": 7})
    assert fixed.fixed_trials() == [
        Trial("config", TrialKind.CONFIG),
        Trial("plain", TrialKind.BASELINE, {"method.name": "plain"}),
    ]
    assert fixed.trials == 2
    beside = plan_of(toy, {"search.baselines": ["ear", "rs-da"]})
    assert labels(beside.fixed_trials()) == ["config", "paper", "rs-da"] and beside.trials == 3


def test_with_seeds_only_plain_fine_tuning_is_run_within_the_search(toy: Toy) -> None:
    seeds = SEARCH | {"search.comparison_seeds": 3}
    plan = plan_of(toy, seeds | {"search.baselines": EVERY})
    assert labels(plan.fixed_trials()) == ["paper", "plain"] and plan.trials == 8
    without = plan_of(toy, seeds | {"search.baselines": ["rs-da", "ear"]})
    assert labels(without.fixed_trials()) == ["paper"] and without.trials == 7


def test_comparison_runs_every_method_once_with_each_fresh_seed(toy: Toy) -> None:
    changes = {"training.seed": 11, "search.comparison_seeds": 3, "search.baselines": EVERY}
    plan = plan_of(toy, SEARCH | changes)
    trials = plan.comparison_trials(Trial.labelled("07", {"method.push_margin": 0.25}))
    named = ["paper" if name == "ear" else name for name in EVERY]
    expected = {
        (f"{name}-seed{seed}", seed) for name in ("best-07", *named) for seed in (12, 13, 14)
    }
    assert {(trial.label, trial.values["training.seed"]) for trial in trials} == expected
    assert len(trials) == len(expected) == 30
    # The methods of one seed side by side: an interrupted comparison has whole seeds.
    assert [trial.values["training.seed"] for trial in trials] == [12] * 10 + [13] * 10 + [14] * 10
    names = {trial.label: with_values(plan.spec, trial.values).method for trial in trials}
    assert names["paper-seed12"].name == "ear" and names["adv-seed14"].name == "adv"
    assert names["best-07-seed13"].push_margin == 0.25


@pytest.mark.parametrize(
    ("seeds", "fresh"),
    [
        ({"distribution": "int", "low": 3, "high": 9}, (12, 13)),
        ({"distribution": "int", "low": 3, "high": 40}, (41, 42)),
        ({"distribution": "categorical", "choices": [30, 5]}, (31, 32)),
    ],
)
def test_fresh_seeds_are_none_that_the_search_can_draw(
    toy: Toy, seeds: dict[str, Any], fresh: tuple[int, ...]
) -> None:
    searched = {"search.parameters": {"training.seed": seeds}, "search.confirmation": {"seeds": 2}}
    changes = {"training.seed": 11, "search.comparison_seeds": 2, "training.head_seed": 1}
    plan = plan_of(toy, SEARCH | searched | changes)
    assert plan.comparison_seeds == fresh
    assert confirmation_seeds(plan.spec) == tuple(seed + 10_000 for seed in fresh)


def test_comparison_takes_the_best_values_over_and_changes_its_seed(toy: Toy) -> None:
    changes = {"training.seed": 0, "search.comparison_seeds": 2, "search.baselines": ["plain"]}
    plan = plan_of(toy, SEARCH | changes)
    best = {"method.push_margin": None, "method.pull_layer": 1, "training.seed": 99}
    again = TrialKind.COMPARISON
    assert plan.comparison_trials(Trial.labelled("07", best)) == [
        Trial("best-07-seed1", again, {**best, "training.seed": 1}),
        Trial("plain-seed1", again, {"method.name": "plain", "training.seed": 1}),
        Trial("best-07-seed2", again, {**best, "training.seed": 2}),
        Trial("plain-seed2", again, {"method.name": "plain", "training.seed": 2}),
    ]
    assert best["training.seed"] == 99
    assert plan_of(toy, SEARCH).comparison_trials(Trial.labelled("07", best)) == []


def test_work_counts_views_of_any_method_and_virtual_dev_texts(toy: Toy) -> None:
    plan = plan_of(toy, {"method.name": "plain", "search.baselines": ["ear-no-push"]})
    # 6 steps of 16 pairs, in one of two runs with their views; 60 dev texts in two languages and
    # 30 virtual ones once a run, 84 test texts.
    assert (plan.trials, plan.training.steps, plan.evaluations) == (2, 6, 1)
    assert "288 texts trained on and 348 texts scored" in dict(describe(plan))["work"]


def test_long_plain_fine_tuning_forwards_as_many_texts_as_a_method_with_views(toy: Toy) -> None:
    def work(name: str, **training: Any) -> tuple[int, int]:
        recipe = {f"training.{key}": value for key, value in training.items()}
        return plan_of(toy, {"method.name": name, "search.baselines": [], **recipe}).work

    # 6 steps of 16 texts an epoch; 90 dev texts at each evaluation, 84 test texts.
    assert work("plain") == (96, 90 + 84)
    assert work("rs-da") == (192, 90 + 84)
    assert work("plain-long") == (192, 2 * 90 + 84)
    for recipe in ({"epochs": 3, "max_steps": 7}, {"max_steps": 4}, {"batch_size": 32}):
        assert work("plain-long", **recipe)[0] == work("ear", **recipe)[0]
    # 7 of 6 steps an epoch are 7 / 6 epochs; 14 are 7 / 3 epochs, with 2 evaluations each.
    short = {"epochs": 3, "max_steps": 7, "evaluations_per_epoch": 2}
    assert work("plain", **short)[1] == 2 * 90 + 84
    assert work("plain-long", **short)[1] == 5 * 90 + 84


def test_work_counts_every_view_of_a_dev_text_and_only_scored_languages(toy: Toy) -> None:
    changes = {"method.name": "plain", "search.baselines": [], "data.virtual_views": 3}
    # 30 dev texts in each of two languages, 84 test texts.
    assert plan_of(toy, changes).work[1] == 60 + 3 * 30 + 84
    source = changes | {"data.dev_languages": "source"}
    assert plan_of(toy, source).work[1] == 30 + 3 * 30 + 84
    for limit, texts in ((7, 7), (50, 30)):
        some = changes | {"data.target_dev_limit": limit}
        assert plan_of(toy, some).work[1] == 30 + texts + 3 * 30 + 84


@pytest.mark.parametrize(("soups", "runs"), [(True, 5), (False, 3)])
def test_work_counts_the_confirmation(toy: Toy, soups: bool, runs: int) -> None:
    """A soup may have all trials as members; without soups, plain and the best two run again."""
    search = SEARCH | {"search.num_trials": 4, "search.baselines": ["plain"]}
    confirmed = search | {"search.soups": soups, "search.confirmation": {"top": 2, "seeds": 3}}
    before, after = plan_of(toy, search).work, plan_of(toy, confirmed).work
    # Each run: 6 steps of 16 texts and their views, 90 dev and 84 test texts.
    assert after == (before[0] + 3 * runs * 192, before[1] + 3 * runs * (90 + 84))


def methods(*names: str) -> dict[str, Any]:
    return {
        "search.parameters": {
            "method.name": {"distribution": "categorical", "choices": list(names)}
        },
        "search.num_trials": 3,
        "search.baselines": [],
    }


def test_work_of_a_search_over_methods_is_that_of_the_costliest(toy: Toy) -> None:
    # The paper's trial and two proposals; 90 dev texts an evaluation, 84 test texts.
    cheap = plan_of(toy, methods("plain"))
    assert cheap.work == (192 + 2 * 96, 3 * (90 + 84))
    assert plan_of(toy, methods("plain", "rs-da")).work == (3 * 192, 3 * (90 + 84))
    long = plan_of(toy, methods("plain", "plain-long"))
    assert long.work == (3 * 192, 90 + 84 + 2 * (2 * 90 + 84))
    assert (long.training.steps, long.evaluations) == (12, 2)
    assert dict(describe(long))["a trial"].startswith("at most 12 steps of 16, 2 dev")


@pytest.mark.parametrize(
    ("searched", "own", "steps"),
    [
        # 96 examples: 6 batches of 16, 12 of 8.
        ({"epochs": {"distribution": "int", "low": 1, "high": 4}}, {}, 24),
        ({"batch_size": {"distribution": "categorical", "choices": [8, 32]}}, {}, 12),
        ({"max_steps": {"distribution": "int", "low": 2, "high": 5}}, {"training.max_steps": 3}, 5),
        ({"max_steps": {"distribution": "categorical", "choices": [2, None]}}, {}, 6),
    ],
)
def test_a_search_over_the_recipe_is_planned_with_its_longest(
    toy: Toy, searched: dict[str, Any], own: dict[str, Any], steps: int
) -> None:
    parameters = {f"training.{key}": value for key, value in searched.items()}
    plan = plan_of(toy, SEARCH | own | {"search.parameters": parameters})
    assert plan.training.steps == steps
    assert dict(describe(plan))["a trial"].startswith(f"at most {steps} steps")
    # Plain fine-tuning has no views.
    assert plan.work[0] == (2 * plan.trials - 1) * steps * plan.training.batch_size


def test_limited_steps_are_planned_with_the_smallest_batches_and_texts_with_the_largest(
    toy: Toy,
) -> None:
    # Two epochs of 96 examples: 24 steps of 8, limited to 10, are 80 texts; 6 steps of 32 are 192.
    sizes = {"distribution": "categorical", "choices": [8, 32]}
    changes = {"training.epochs": 2, "training.max_steps": 10, "method.name": "plain"}
    plan = plan_of(
        toy,
        changes
        | {
            "search.parameters": {"training.batch_size": sizes},
            "search.num_trials": 3,
            "search.baselines": [],
            "search.paper_trial": False,
        },
    )
    assert plan.training.steps == 10
    assert plan.work[0] == 3 * 192


def test_limited_steps_are_planned_with_the_evaluations_of_the_largest_batches(toy: Toy) -> None:
    # 24 steps are 2 epochs of 12 batches of 8 texts, so 4 evaluations; 8 epochs of 3 batches of 32,
    # so 16. Each scores 90 dev texts.
    sizes = {"distribution": "categorical", "choices": [8, 32]}
    changes = {"training.epochs": 10, "training.max_steps": 24, "method.name": "plain"}
    searched = {
        "search.parameters": {"training.batch_size": sizes},
        "search.num_trials": 3,
        "search.baselines": [],
        "search.paper_trial": False,
        "training.evaluations_per_epoch": 2,
    }
    plan = plan_of(toy, changes | searched)
    assert (plan.training.steps, plan.evaluations) == (24, 16)
    assert plan.work == (3 * 24 * 32, 3 * (16 * 90 + 84))
    assert "16 dev evaluations" in dict(describe(plan))["a trial"]
    many = changes | searched | {"training.evaluations_per_epoch": 20_000}
    assert "160,000 dev evaluations" in complaint(toy, many)


@pytest.mark.parametrize("max_steps", [None, 1, 5, 13, 40])
@pytest.mark.parametrize("per_epoch", [1, 3])
def test_no_batch_size_of_a_range_has_more_evaluations_than_planned(
    toy: Toy, max_steps: int | None, per_epoch: int
) -> None:
    """The most may be those of a size between the ends: of batches with all rows there are few."""
    sizes = {"distribution": "int", "low": 2, "high": EXAMPLES["train"]}
    plan = plan_of(
        toy,
        SEARCH
        | {
            "search.parameters": {"training.batch_size": sizes},
            "training.epochs": 6,
            "training.max_steps": max_steps,
            "training.evaluations_per_epoch": per_epoch,
        },
    )
    evaluations = [
        len(replace(plan.training, batch_size=size).evaluation_steps(per_epoch))
        for size in range(2, EXAMPLES["train"] + 1)
    ]
    assert max(evaluations) == plan.evaluations


def test_plan_of_the_baseline_that_trains_longer(toy: Toy) -> None:
    both = SEARCH | {"search.baselines": ["plain", "plain-long"]}
    plan = plan_of(toy, both)
    assert plan.fixed_trials()[-1].spec(plan.spec).training == plan.spec.training
    assert (plan.training.steps, plan.evaluations) == (6, 1)
    assert plan.schedule("plain-long").steps == 12
    described = dict(describe(plan))
    assert described["a trial"].endswith("1 test evaluation; plain-long: 12 steps")
    # 7 trials with views, plain once and long; their dev evaluations are 7 + 1 + 2.
    assert plan.work == (7 * 192 + 96 + 192, 10 * 90 + 9 * 84)
    alone = plan_of(toy, {"method.name": "plain-long"})
    assert (alone.training.steps, alone.evaluations) == (12, 2)
    # The file of the best trial repeats the training; the factor is not in its values.
    best = alone.fixed_trials()[0].spec(alone.spec)
    assert make_plan(best).training.steps == 12
    message = complaint(toy, both | {"training.evaluations_per_epoch": 60_000})
    assert "120,000 dev evaluations" in message


def test_the_targets_of_the_search_replace_those_of_the_task(tmp_path: Path) -> None:
    toy = make_toy(tmp_path)
    for split in ("dev", "test"):
        (toy.folder / f"{split}-fr.tsv").write_bytes((toy.folder / f"{split}-de.tsv").read_bytes())
    plan = plan_of(toy, {"target_languages": ["fr"]})
    assert plan.task.target_languages == ("fr",)
    assert {language for _, language in plan.examples} == {"en", "fr"}
    assert "language 'xx'" in complaint(toy, {"target_languages": ["xx"]})


def test_parameters_are_the_whole_spec_as_text(toy: Toy) -> None:
    spec = toy.spec({})
    found = parameters_of(spec)
    assert found["method.view.radius"] == "0.5" and found["training.batch_size"] == "16"
    assert found["model"] == spec.model and found["method.push_margin"] == "0.02"
    assert all(isinstance(value, str) for value in found.values())
    assert json.loads(json.dumps(found)) == found
