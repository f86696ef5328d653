"""Which models are assessed after a search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.search_results import LANGUAGES, entry
from tests.unit.pipeline.test_run import MadeUp, made_up
from xlt_ray.cluster import assessment_task
from xlt_ray.config.spec import SearchSpec
from xlt_ray.evaluation.assessment import Assessment
from xlt_ray.pipeline.assess import assess_models
from xlt_ray.pipeline.stage import SearchRun
from xlt_ray.search.leaderboard import ranked


@pytest.mark.parametrize(
    ("objectives", "assessed"),
    [
        ({"01": 0.9, "02": 0.8, "plain": 0.7}, {"plain": "plain", "best": "01"}),
        # Where plain fine-tuning wins, the best other configuration is measured beside it.
        ({"01": 0.7, "02": 0.8, "plain": 0.9}, {"plain": "plain", "best": "02"}),
        ({"01": 0.7, "plain": 0.6, "soup": 0.9}, {"plain": "plain", "best": "soup"}),
        ({"01": 0.7, "plain": 0.6, "adv": 0.9}, {"plain": "plain", "best": "adv"}),
        ({"plain": 0.6}, {"plain": "plain"}),
        ({"01": 0.7}, {"best": "01"}),
    ],
)
def test_the_pretrained_encoder_plain_and_the_best_are_assessed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objectives: dict[str, float],
    assessed: dict[str, str],
) -> None:
    run = assessed_search(tmp_path)
    run.entries = ranked(
        [entry(label, LANGUAGES, objective=value) for label, value in objectives.items()]
    )
    asked = watched(monkeypatch)
    assess_models(run)
    assert asked.pop("pretrained") is None
    assert {name: found.label for name, found in asked.items()} == assessed


def assessed_search(folder: Path) -> SearchRun:
    """A search that asks for the alignment of a few rows."""
    run = made_up(MadeUp, folder, seeds=0)
    wanted = run.plan.spec.assessment.model_copy(update={"alignment_rows": 5})
    object.__setattr__(run.plan, "spec", run.plan.spec.model_copy(update={"assessment": wanted}))
    return run


def watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is measured: models by name; each gets an empty measurement."""
    asked: dict[str, Any] = {}
    nothing = np.zeros((0, 2)), np.zeros(0, dtype=np.int64)

    def assess(models: dict[str, Any], *_: Any, **__: Any) -> dict[str, Assessment]:
        asked.update(models)
        return {name: Assessment({}, *nothing, None) for name in models}

    monkeypatch.setattr(assessment_task, "assess_on_cluster", assess)
    return asked


def test_a_soup_is_loaded_as_its_first_member_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = assessed_search(tmp_path)
    decays = {"01": 0.01, "02": 0.05}
    members = [
        entry(label, LANGUAGES, values={"training.weight_decay": decay})
        for label, decay in decays.items()
    ]
    soup = replace(entry("soup", LANGUAGES, objective=0.9), members=("02", "01"))
    run.entries = ranked([*members, soup, entry("plain", LANGUAGES, objective=0.5)])
    given: dict[str, float] = {}

    def assess(models: Any, specs: dict[str, SearchSpec], *_: Any, **__: Any) -> dict[str, Any]:
        given.update({name: spec.training.weight_decay for name, spec in specs.items()})
        return {}

    monkeypatch.setattr(assessment_task, "assess_on_cluster", assess)
    assess_models(run)
    assert run.winner is not None and run.winner.label == "soup"
    assert given == {"pretrained": 0.0, "plain": 0.0, "best": 0.05}


def test_a_resumed_search_measures_again_if_it_shall_measure_more_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = assessed_search(tmp_path)
    run.entries = ranked([entry("01", LANGUAGES, objective=0.8)])
    asked = watched(monkeypatch)
    for rows, measured in ((5, True), (5, False), (9, True), (9, False)):
        wanted = run.plan.spec.assessment.model_copy(update={"alignment_rows": rows})
        spec = run.plan.spec.model_copy(update={"assessment": wanted})
        object.__setattr__(run.plan, "spec", spec)
        asked.clear()
        assess_models(run)
        assert bool(asked) == measured


def test_a_resumed_search_measures_again_if_its_winner_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = assessed_search(tmp_path)
    asked = watched(monkeypatch)
    finished = {"01": 0.8, "plain": 0.7}
    for more, measured in (({}, "01"), ({}, None), ({"02": 0.9}, "02"), ({"02": 0.9}, None)):
        scores = {**finished, **more}
        run.entries = ranked(
            [entry(label, LANGUAGES, objective=value) for label, value in scores.items()]
        )
        asked.clear()
        assess_models(run)
        assert (asked["best"].label if asked else None) == measured
