"""Names and descriptions of runs say what they must, in few words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.searching import write_search
from xlt_ray.config.loading import load_spec
from xlt_ray.config.spec import SearchSpec
from xlt_ray.config.task import load_task
from xlt_ray.data.batching import BatchSchedule
from xlt_ray.encoders.loading import EncoderInfo
from xlt_ray.search.leaderboard import Entry, ranked
from xlt_ray.search.ledger import Record
from xlt_ray.search.plan import Plan
from xlt_ray.search.trials import Trial, TrialStatus
from xlt_ray.search.verdict import verdict
from xlt_ray.tracking.descriptions import run_name, search_note, trial_note


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    spec = load_spec(str(write_search(tmp_path_factory.mktemp("notes"))))
    steps = BatchSchedule(np.ones(96, dtype=np.int64), 16, 2, None, 7)
    encoder = EncoderInfo("somewhere", "xlm-roberta", 2, 32, 100, 512)
    return Plan(spec, load_task(spec.task), encoder, {}, steps)


def scores(zero_shot: float) -> dict[str, float]:
    return {"accuracy/zero_shot_mean": zero_shot, "accuracy/mean": 0.9}


def entry(label: str, status: Any = "finished", zero_shot: float = 0.5, **values: Any) -> Entry:
    test = scores(zero_shot) if status == "finished" else {}
    return Entry(
        Trial.labelled(label, values), TrialStatus(status), 0.8, test, {}, {}, reason="too bad"
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {
                "label": "07",
                "method.push_margin": 0.4,
                "method.pull_weight": 12.0,
                "method.view.radius": 0.6,
            },
            "07 ear m=0.4 β=12 r=0.6",
        ),
        ({"label": "1234", "method.push_margin": None}, "1234 ear m=none"),
        (
            {"label": "01", "method.name": "rs-da", "training.learning_rate": 2.345678e-5},
            "01 rs-da learning_rate=2.35e-05",
        ),
        (
            {"label": "02", "method.name": "ear", "method.view.kind": "random"},
            "02 ear kind=random",
        ),
        ({"label": "plain", "method.name": "plain"}, "plain"),
        ({"label": "best-seed8", "method.push_margin": 0.4}, "best-seed8"),
    ],
)
def test_a_run_is_named_by_its_configuration(
    plan: Plan, config: dict[str, Any], expected: str
) -> None:
    assert run_name(plan.spec, Trial.from_config(config)) == expected


def test_a_trial_is_described_in_one_line(plan: Plan) -> None:
    spec: SearchSpec = plan.spec
    trial = Trial.proposal(2, {"method.push_margin": 0.25})
    assert trial_note(spec, Record(trial)) == "`ear` with `push_margin=0.25`"
    metrics = {"objective": 0.8125, "test/accuracy/zero_shot_mean": 0.654}
    assert trial_note(spec, Record(trial, TrialStatus.FINISHED, metrics)).endswith(
        "; finished, dev/accuracy/en 81.2 %, test zero-shot mean 65.4 %"
    )
    pruned = trial_note(spec, Record(trial, TrialStatus.PRUNED, {"objective": 0.5}))
    assert pruned.endswith("; stopped early, dev/accuracy/en 50.0 %")
    plain = Trial.of_method("plain")
    failed = trial_note(spec, Record(plain, TrialStatus.FAILED, {}, reason="ValueError: no"))
    assert failed == "`plain`; failed: ValueError: no"


def test_a_search_is_described_when_it_begins_and_when_it_ended(plan: Plan) -> None:
    folder = Path("runs/tiny-1")
    begun = search_note(plan, folder)
    for said in (
        "tiny, en → de ru",
        plan.spec.model,
        "`ear`, searched: ",
        "`method.push_margin`",
        "baselines: `plain`",
        "`dev/accuracy/en`; test scores are never used for selection",
        "3, running",
        "`python launch.py --resume runs/tiny-1`",
    ):
        assert said in begun
    assert "best.yaml" not in begun
    entries = ranked(
        [
            replace(entry("plain", zero_shot=0.605), objective=0.7),
            entry("01", zero_shot=0.734, **{"method.push_margin": 0.4}),
            entry("02", "failed"),
        ]
    )
    ended = search_note(plan, folder, entries, verdict(entries, {}, ["de", "ru"]))
    for said in (
        "3 of 3, 2 finished, 1 failed",
        "01, `push_margin=0.4`, zero-shot mean 73.4 %",
        "plain, zero-shot mean 60.5 %",
        "Chosen on dev data: 01, test zero-shot mean 73.4 %, +12.9 points against",
        "`python launch.py --search runs/tiny-1/best.yaml`",
        "`python launch.py --resume runs/tiny-1`",
    ):
        assert said in ended
    # MLflow shows no more than this of a tag.
    assert len(json.dumps(ended)) < 5000


def test_a_verdict_on_a_trial_that_is_gone_leaves_the_first_ranked(plan: Plan) -> None:
    stale = verdict(ranked([entry("plain")]), {}, ["de", "ru"])
    note = search_note(plan, Path("runs/x"), ranked([entry("01", zero_shot=0.734)]), stale)
    assert "01, zero-shot mean 73.4 %" in note


def test_a_search_without_a_best_trial_is_described_too(plan: Plan) -> None:
    nothing = [entry("01", "failed"), entry("plain", "failed")]
    note = search_note(plan, Path("runs/x"), nothing)
    assert "2 of 3, 2 failed" in note and "best.yaml" not in note and "--resume" in note
