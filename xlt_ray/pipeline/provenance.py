"""The provenance of a search as MLflow tags: versions, commit, task, model. `run` calls it."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from xlt_ray.search.plan import Plan

_PACKAGES = ("ray", "torch", "transformers", "datasets", "optuna", "mlflow")


def run_tags(plan: Plan) -> dict[str, str]:
    """Return the tags that every run of a search has in MLflow.

    Args:
        plan: The search.
    """
    tags = {
        "task": plan.task.name,
        "model": plan.spec.model,
        "selection": plan.spec.search.objective,
        "search": plan.spec.name,
        "version.python": platform.python_version(),
    }
    for package in ("xlt-ray", *_PACKAGES):
        try:
            tags[f"version.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = _git_commit()
    return tags | ({"git_commit": commit} if commit else {})


def _git_commit() -> str | None:
    """Return the commit of the source tree that has this package; None outside a repository."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
