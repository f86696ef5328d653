"""A search's tags name what it ran with."""

from __future__ import annotations

import platform
from pathlib import Path

from tests.unit.pipeline.test_run import MadeUp, made_up
from xlt_ray.pipeline.provenance import run_tags


def test_tags_name_task_model_and_versions(tmp_path: Path) -> None:
    plan = made_up(MadeUp, tmp_path, seeds=0).plan
    tags = run_tags(plan)
    assert (tags["task"], tags["model"]) == (plan.task.name, plan.spec.model)
    assert tags["version.python"] == platform.python_version()
    assert {"version.ray", "version.torch", "version.mlflow"} <= set(tags)
    assert len(tags.get("git_commit", "0" * 40)) == 40
