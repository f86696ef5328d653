"""After a search only the weights that something needs are left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.search_results import LANGUAGES, entry
from tests.unit.pipeline.test_run import MadeUp, made_up
from xlt_ray.names import STATE
from xlt_ray.pipeline.deliver import drop_weights
from xlt_ray.search.leaderboard import ranked
from xlt_ray.search.soup_recipes import write_soups
from xlt_ray.search.trials import TrialStatus


@pytest.mark.parametrize(
    ("objectives", "kept"),
    [
        ({"01": 0.9, "02": 0.8, "03": 0.75, "plain": 0.7}, {"01", "02", "plain"}),
        ({"01": 0.6, "02": 0.8, "03": 0.7, "plain": 0.9}, {"02", "03", "plain"}),
        ({"01": 0.8, "02": 0.7, "03": 0.5, "soup": 0.9, "plain": 0}, {"soup", "01", "02", "plain"}),
        ({"01": 0.8, "soup": 0.9, "soup-greedy": 0.7, "plain": 0.6}, {"soup", "01", "plain"}),
        ({"01": 0.7, "02": 0.6, "plain": 0.5, "adv": 0.9}, {"adv", "01", "plain"}),
    ],
)
def test_weights_of_the_winner_and_of_the_candidates_of_a_confirmation_are_kept(
    tmp_path: Path, objectives: dict[str, float], kept: set[str]
) -> None:
    run = made_up(MadeUp, tmp_path, seeds=0)
    entries = []
    for label, objective in objectives.items():
        checkpoint = run.folder / label
        checkpoint.mkdir()
        for name in ("model.safetensors", "predictions.npz"):
            (checkpoint / name).write_bytes(b"x")
        made = entry(label, LANGUAGES, objective=objective)
        trial = replace(made.trial, values={"method.pull_weight": objective})
        entries.append(replace(made, trial=trial, checkpoint=str(checkpoint)))
    run.entries = ranked(entries)
    drop_weights(run.entries, run)
    left = {path.parent.name for path in run.folder.rglob("model.safetensors")}
    assert left == kept
    assert len(list(run.folder.rglob("predictions.npz"))) == len(objectives)


def test_nothing_is_left_of_a_trial_that_was_stopped_early_nor_of_a_soup_of_one(
    tmp_path: Path,
) -> None:
    run = made_up(MadeUp, tmp_path, seeds=0)

    def checkpoint(name: str, *files: str) -> str:
        folder = run.folder / name / "checkpoint-2"
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).write_bytes(b"x")
        return str(folder)

    state = "model.safetensors", "optimizer.pt", "best.safetensors"
    stopped = entry("02", LANGUAGES, status=TrialStatus.PRUNED, objective=0.5)
    stopped = replace(stopped, checkpoint=checkpoint("trial-02", *state))
    checkpoint("trial-02/before", *state)
    going = entry("03", LANGUAGES, status=TrialStatus.INTERRUPTED, objective=0.5)
    going = replace(going, checkpoint=checkpoint("trial-03", "optimizer.pt"))
    best = entry("01", LANGUAGES, objective=0.9)
    best = replace(best, checkpoint=checkpoint("trial-01", "model.safetensors"))
    alone = checkpoint("trial-soup-greedy", "model.safetensors", "predictions.npz")
    (run.folder / STATE).mkdir()
    write_soups(
        {"soup-greedy": {"members": ["01"], "metrics": {}, "checkpoint": alone}}, run.folder
    )
    run.entries = ranked([best, stopped, going])
    drop_weights(run.entries, run)
    left = sorted(str(p.relative_to(run.folder)) for p in run.folder.rglob("checkpoint-2/*"))
    assert left == [
        "trial-01/checkpoint-2/model.safetensors",
        "trial-03/checkpoint-2/optimizer.pt",
        "trial-soup-greedy/checkpoint-2/predictions.npz",
    ]
