"""After a search only the weights that something needs are left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.support.search_results import LANGUAGES, entry
from tests.unit.pipeline.test_run import MadeUp, made_up
from xlt_ray.pipeline.deliver import drop_weights
from xlt_ray.search.leaderboard import ranked


def test_weights_of_the_best_trial_and_the_baseline_are_kept(tmp_path: Path) -> None:
    run = made_up(MadeUp, tmp_path, seeds=0)
    entries = []
    for label, objective in (("01", 0.9), ("02", 0.8), ("plain", 0.7)):
        checkpoint = run.folder / label
        checkpoint.mkdir()
        for name in ("model.safetensors", "predictions.npz"):
            (checkpoint / name).write_bytes(b"x")
        made = entry(label, LANGUAGES, objective=objective)
        entries.append(replace(made, checkpoint=str(checkpoint)))
    drop_weights(ranked(entries), run)
    left = {path.parent.name for path in run.folder.rglob("model.safetensors")}
    assert left == {"01", "plain"}
    assert len(list(run.folder.rglob("predictions.npz"))) == 3
