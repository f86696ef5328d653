"""A search in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xlt_ray.config.loading import load_spec
from xlt_ray.config.task import load_task
from xlt_ray.search.leaderboard import Entry, ranked
from xlt_ray.search.plan import SearchOutline
from xlt_ray.search.summary import commands, facts, search_command, short_values, shown, signs
from xlt_ray.search.trials import Trial, TrialStatus


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "none"), (0.123456, "0.123"), (2.5e-5, "2.5e-05"), (4, "4"), ("token", "token")],
)
def test_a_value_in_a_table(value: Any, text: str) -> None:
    assert shown(value) == text


def test_values_in_short() -> None:
    values = {"method.push_margin": 0.4, "method.pull_weight": 12.0, "training.epochs": 3}
    assert short_values(values) == "push_margin=0.4 pull_weight=12 epochs=3"
    assert signs(values) == "m=0.4 β=12 epochs=3"
    assert short_values({}) == signs({}) == ""


def test_commands_work_where_the_user_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert search_command("--resume", "runs/a b") == "xlt-ray search --resume 'runs/a b'"
    # A file of this name alone may be of another project.
    Path("launch.py").touch()
    assert search_command() == "xlt-ray search"
    monkeypatch.chdir(Path(__file__).parents[3])
    assert search_command("--resume", "runs/x") == "python launch.py --resume runs/x"


def test_commands_run_the_best_only_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    folder = Path("runs/x")
    resume = {"Go on": "python launch.py --resume runs/x"}
    assert commands(folder, found=False) == resume
    best = {"Re-run the best": "python launch.py --search runs/x/best.yaml"}
    assert commands(folder, found=True) == best | resume


def test_facts_count_the_trials_and_the_soups_apart() -> None:
    spec = load_spec("demo", {"search.num_trials": 3})

    def entry(label: str, objective: float | None, members: tuple[str, ...] = ()) -> Entry:
        status = TrialStatus.PRUNED if objective is None else TrialStatus.FINISHED
        test = {"accuracy/zero_shot_mean": 0.5}
        trial = Trial.labelled(label, {})
        return Entry(trial, status, objective, test, {}, {}, members=members)

    trials = [entry("plain", 0.5), entry("paper", 0.6), entry("01", 0.7), entry("02", None)]
    outline = SearchOutline(spec, load_task("demo"))
    found = facts(outline, Path("runs/x"), ranked(trials))
    assert found["Trials"] == "4 of 4, 3 finished, 1 pruned"
    soup = entry("soup", 0.8, ("01", "paper"))
    found = facts(outline, Path("runs/x"), ranked([*trials, soup]))
    assert found["Trials"] == "4 of 4, 3 finished, 1 pruned; 1 soup"
    assert found["Best"] == "soup, `01 paper`, zero-shot mean 50.0 %"
