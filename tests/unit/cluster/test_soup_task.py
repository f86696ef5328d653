"""The Ray task of a soup, called in this process: what it makes of real trials' checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.support.core_toy import assert_close, make_toy, train
from xlt_ray.cluster import soup_task
from xlt_ray.search.leaderboard import Entry
from xlt_ray.search.soup_recipes import SoupRecipe
from xlt_ray.search.trials import Trial, TrialStatus


def in_this_process(
    function: Callable[..., Any], calls: Mapping[str, tuple[Any, ...]], *_: object
) -> dict[str, Any]:
    return {name: function(*arguments) for name, arguments in calls.items()}


def test_a_soup_has_the_table_of_its_members_not_that_of_the_searchs_own_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weight decay needs the whole table; the search's own value, 0, is none that it proposes."""
    monkeypatch.setenv("XLT_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(soup_task, "results_of_tasks", in_this_process)
    decay = {"distribution": "log_uniform", "low": 1e-4, "high": 1e-1}
    search = make_toy(tmp_path).spec(
        {"training.trim_vocabulary": True, "search.parameters": {"training.weight_decay": decay}}
    )
    members = {}
    for label, value in (("01", 1e-3), ("02", 1e-2)):
        trial = Trial.labelled(label, {"training.weight_decay": value})
        checkpoint = train(trial.spec(search), tmp_path / label).checkpoints[-1]
        members[label] = Entry(
            trial, TrialStatus.FINISHED, 0.5, {}, {}, {}, checkpoint=str(checkpoint)
        )
    recipe = SoupRecipe("soup", tuple(members))
    failed: list[str] = []
    made = soup_task.soups_on_cluster(
        [recipe], members, search, str(tmp_path), str(tmp_path / "made"), failed.append
    )
    assert not failed and made["soup"]["members"] == ["01", "02"]
    one, other, mean = (
        load_file(Path(folder) / "model.safetensors")
        for folder in (
            *(entry.checkpoint for entry in members.values()),
            made["soup"]["checkpoint"],
        )
    )
    assert_close(mean, {name: (one[name] + other[name]) / 2 for name in one}, 1e-6)
