"""Which search goes on, and that it is not another one meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.search_results import SPACE, ledger_of, spec_of
from xlt_ray.config.loading import load_spec
from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import UserError
from xlt_ray.search.resume import check_unchanged, find_folder, waiting_trials
from xlt_ray.search.study import Study
from xlt_ray.search.trials import Trial


def search_folder(runs: Path, name: str) -> Path:
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "search.yaml").write_text("name: any\n")
    return folder


def test_a_name_is_the_latest_search_of_it(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    search_folder(runs, "demo-20260101-120000")
    latest = search_folder(runs, "demo-20260102-090000")
    # Others, though their names begin with it; and a folder that is no search.
    search_folder(runs, "demo-best-20260103-120000")
    search_folder(runs, "demo2-20260103-120000")
    (runs / "demo-20260105-120000").mkdir()
    assert find_folder("demo", str(runs)) == latest
    assert find_folder(str(latest), "elsewhere") == latest
    again = search_folder(runs, "demo-20260102-090000-2")
    assert find_folder("demo", str(runs)) == again


@pytest.mark.parametrize("named", ["demo", "missing/folder", "."])
def test_no_such_search_is_told(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--resume .*such as runs/demo-20260101-120000"):
        find_folder(named, "runs")


def changed(**changes: Any) -> SearchSpec:
    return load_spec("demo", {key.replace("__", "."): value for key, value in changes.items()})


BEGUN = changed().model_dump(mode="json")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"search__num_trials": 40},
        {"search__max_concurrent": 1},
        {"search__comparison_seeds": 3, "search__baselines": ["plain", "adv"]},
        {"assessment__generalized": True},
        {"description": "the same"},
    ],
)
def test_what_changes_no_trial_may_change(changes: dict[str, Any]) -> None:
    check_unchanged(BEGUN, changed(**changes), Path("runs/x"), force=False)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"training__learning_rate": 0.5}, r"training.learning_rate was .*, now 0.5"),
        ({"method__view__radius": 0.25}, r"method.view.radius was .*, now 0.25"),
        ({"search__seed": 9}, "search.seed was 0, now 9"),
        ({"data__train_limit": 7}, "data.train_limit was .*, now 7"),
    ],
)
def test_another_search_is_refused_unless_forced(changes: dict[str, Any], told: str) -> None:
    spec = changed(**changes)
    with pytest.raises(UserError, match=told) as refused:
        check_unchanged(BEGUN, spec, Path("runs/x"), force=False)
    assert "--force" in str(refused.value) and "\n" not in str(refused.value)
    check_unchanged(BEGUN, spec, Path("runs/x"), force=True)


def test_another_space_is_refused_though_forced() -> None:
    """Optuna could not learn from proposals of another space."""
    spec = changed(
        search__parameters={
            "method.push_margin": {"distribution": "uniform", "low": 0.0, "high": 9.0}
        }
    )
    with pytest.raises(UserError, match=r"search.parameters.*start a new search") as refused:
        check_unchanged(BEGUN, spec, Path("runs/x"), force=True)
    assert "--force" not in str(refused.value)


def test_many_changes_are_counted() -> None:
    spec = changed(
        training__learning_rate=0.5,
        training__seed=1,
        training__epochs=9,
        training__batch_size=3,
        training__gradient_clip=0.1,
    )
    with pytest.raises(UserError, match=r"and 2 more;"):
        check_unchanged(BEGUN, spec, Path("runs/x"), force=False)


def test_a_key_that_the_earlier_version_had_not_yet_is_no_change() -> None:
    before = {key: value for key, value in BEGUN.items() if key != "assessment"}
    before["training"] = {k: v for k, v in BEGUN["training"].items() if k != "precision"}
    check_unchanged(before, changed(), Path("runs/x"), force=False)


def test_a_search_of_which_nothing_ran_may_be_any() -> None:
    check_unchanged(None, changed(training__seed=1), Path("runs/x"), force=False)


FIXED = [Trial.of_method("ear"), Trial.of_method("plain")]


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


def test_a_search_over_methods_goes_on_with_the_proposals_that_its_study_lost(
    tmp_path: Path,
) -> None:
    space = {
        **SPACE,
        "method.view.noise_radius": {"distribution": "uniform", "low": 0.1, "high": 1.0},
        "method.name": {"distribution": "categorical", "choices": ["plain", "rs-rp", "ear"]},
    }
    spec = spec_of(space)
    before = Study(spec)
    proposals = []
    for _ in range(8):
        label, values = before.propose()
        proposals.append((label, values))
        before.end(label, 0.5)
    assert {values["method.name"] for _, values in proposals} == {"plain", "rs-rp", "ear"}
    ledger = ledger_of(tmp_path, *((*one, [0.5], "finished") for one in proposals))
    study = Study(spec)
    assert waiting_trials([], study, ledger) == []
    assert study.values() == dict(proposals)
    assert study.propose() == before.propose()


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


def test_a_trial_keeps_its_number_if_the_study_lost_one_before_it_too(tmp_path: Path) -> None:
    """Tune may start the actor of 03 before that of 02: the ledger then has 03 alone."""
    whole = Study(spec_of(SPACE))
    values = dict(whole.propose() for _ in range(3))
    study = Study(spec_of(SPACE))
    study.propose()
    ledger = ledger_of(
        tmp_path,
        ("01", values["01"], [0.5], "running"),
        ("03", values["03"], [0.9], "finished"),
    )
    waiting = waiting_trials([], study, ledger)
    assert waiting == [Trial.proposal(number, values[f"{number:02d}"]) for number in (1, 2)]
    assert study.values() == values and set(study.unfinished()) == {"01", "02"}
    assert study.propose()[0] == "04"


def test_a_trial_that_ran_goes_on_with_the_values_that_it_ran_with(tmp_path: Path) -> None:
    study = Study(spec_of(SPACE))
    study.propose()
    ran = {"method.push_margin": 0.25, "method.view.radius": 0.75}
    (trial,) = waiting_trials([], study, ledger_of(tmp_path, ("01", ran, [0.6], "running")))
    assert trial == Trial.proposal(1, ran)
