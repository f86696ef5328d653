"""What a search recorded: its runs in MLflow and its leaderboard."""

from __future__ import annotations

import json
from pathlib import Path

from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient


def runs_of(folder: Path, experiment: str) -> tuple[MlflowRun, dict[str, MlflowRun]]:
    """The parent run of an experiment's only search, and its trials by label."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    return parent, {run.data.tags["trial"]: run for run in children}


def leaderboard(state: Path) -> dict[str, dict[str, object]]:
    rows = json.loads((state / "leaderboard.json").read_text())
    return {row["trial"]: row for row in rows}
