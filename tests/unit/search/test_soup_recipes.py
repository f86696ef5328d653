"""Which soups a search makes, when none can be made, and the file of those that were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xlt_ray.config.loading import load_spec
from xlt_ray.config.spec import SearchSpec
from xlt_ray.names import STATE
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.soup_recipes import (
    SoupRecipe,
    read_soups,
    soup_entry,
    soup_recipes,
    soup_refusal,
    write_soups,
)
from xlt_ray.search.trials import Trial, TrialKind, TrialStatus


@pytest.fixture(scope="module")
def spec() -> SearchSpec:
    return load_spec("demo")


def entry(label: str, objective: float | None, **values: Any) -> Entry:
    status = TrialStatus.PRUNED if objective is None else TrialStatus.FINISHED
    keys = {"method.robust_weight": objective}
    keys |= {key.replace("__", "."): value for key, value in values.items()}
    return Entry(Trial.labelled(label, keys), status, objective, {}, {}, {}, f"trial-{label}")


def test_all_finished_trials_but_the_baselines_the_best_first(spec: SearchSpec) -> None:
    entries = [
        entry("paper", 0.7),
        entry("plain", 0.9, method__name="plain"),
        entry("01", 0.6),
        entry("02", None),
        entry("03", 0.8),
    ]
    assert soup_recipes(entries, spec) == [
        SoupRecipe("soup", ("03", "paper", "01")),
        SoupRecipe("soup-greedy", ("03", "paper", "01")),
    ]


def test_the_same_values_are_averaged_once(spec: SearchSpec) -> None:
    twins = {
        label: entry(label, score, method__robust_weight=1.0, training__seed=seed)
        for label, score, seed in (("01", 0.6, 7), ("02", 0.6, 7), ("03", 0.7, 8))
    }
    [soup, _] = soup_recipes(list(twins.values()), spec)
    assert soup.members == ("03", "01")
    assert soup_recipes([twins["01"], twins["02"]], spec) == []


def test_one_soup_a_method_where_methods_are_mixed(spec: SearchSpec) -> None:
    entries = [
        entry("paper", 0.7, method__name="ear"),
        entry("01", 0.6, method__name="rs-da"),
        entry("02", 0.5, method__name="ear"),
        entry("03", 0.4, method__name="plain"),
        entry("04", 0.3, method__name="rs-da"),
    ]
    found = {recipe.label: recipe.members for recipe in soup_recipes(entries, spec)}
    assert found == {
        "soup": ("paper", "01", "02", "03", "04"),
        "soup-greedy": ("paper", "01", "02", "03", "04"),
        "soup-paper": ("paper", "02"),
        "soup-rs-da": ("01", "04"),
    }


def test_one_trial_makes_no_soup(spec: SearchSpec) -> None:
    assert soup_recipes([entry("paper", 0.7), entry("plain", 0.9), entry("01", None)], spec) == []


def test_heads_that_start_differently_are_refused(spec: SearchSpec) -> None:
    entries = [entry("01", 0.7, training__seed=1), entry("02", 0.7, training__seed=2)]
    assert "set training.head_seed" in (soup_refusal(entries, spec) or "")
    own = load_spec("demo", {"training.head_seed": 3})
    assert soup_refusal(entries, own) is None


def test_trimmed_and_whole_vocabularies_are_refused(spec: SearchSpec) -> None:
    entries = [entry("01", 0.7), entry("02", 0.7, training__weight_decay=0.1)]
    assert "set training.trim_vocabulary=false" in (soup_refusal(entries, spec) or "")
    whole = load_spec("demo", {"training.trim_vocabulary": False})
    assert soup_refusal(entries, whole) is None


def test_a_record_survives_the_file(tmp_path: Path) -> None:
    assert read_soups(tmp_path) == {}
    record = {
        "candidates": ["01", "02"],
        "members": ["01"],
        "metrics": {"objective": 0.5, "test/accuracy/en": 0.7, "selected/likelihood/en": 0.5},
        "seconds": 3.0,
        "checkpoint": "somewhere/checkpoint",
    }
    (tmp_path / STATE).mkdir()
    write_soups({"soup-greedy": record}, tmp_path)
    (found,) = read_soups(tmp_path).items()
    made = soup_entry(*found)
    assert made.trial == Trial("soup-greedy", TrialKind.SOUP) and made.status == "finished"
    assert made.objective == 0.5 and made.members == ("01",)
    assert made.test == {"accuracy/en": 0.7} and made.selected == {"likelihood/en": 0.5}
    assert made.checkpoint == "somewhere/checkpoint" and made.seconds == {"total": 3.0}
