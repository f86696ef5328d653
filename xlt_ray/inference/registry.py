"""Register the best model of a search in MLflow; the alias `champion` marks the best of all.

The pipeline calls it at the end of a search.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlt_ray.inference.model_card import card_text
from xlt_ray.inference.serving import REQUIREMENTS
from xlt_ray.names import BEST_MODEL, MODEL_DESCRIPTION

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models.model import ModelInfo

CHAMPION = "champion"
"""Alias of the version with the highest dev score."""

_SELECTION, _SCORE, _TRIAL, _WEIGHTS = "selection", "objective", "trial", "weights_sha256"
"""Tags of a version: the dev metric that selected it, its value, the trial, and its weights, which
differ if a resumed search averages other trials in a soup."""


@dataclass(frozen=True)
class Registered:
    """A version of a registered model."""

    name: str
    """Name of the registered model."""
    version: str
    """Number of the version."""
    champion: bool
    """Whether the version is the champion."""
    reason: str
    """Why the version is the champion, or is not."""


def register_model(
    model: Path, uri: str, run_id: str, name: str, selection: str, score: float
) -> Registered:
    """Log an exported model to its search's run and register it, unless it is registered already.

    The model becomes the champion if there is none, or if its dev score is higher by the same
    metric. Test scores are never used for selection.

    Args:
        model: The model's folder, as written by :func:`xlt_ray.inference.export.export_best`.
        uri: MLflow tracking URI, also used for the registry.
        run_id: MLflow's id of the search's run.
        name: Name of the registered model.
        selection: The dev metric that selected the trial, such as `dev/accuracy/en`.
        score: Value of that metric, in [0, 1].

    Raises:
        MlflowException: If the tracking store refuses.
        OSError: If a file cannot be written.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri, uri)
    described = json.loads((model / MODEL_DESCRIPTION).read_text(encoding="utf-8"))
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    with (model / "model.safetensors").open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    known = [
        version
        for version in client.search_model_versions(f"name = '{name}'")
        if version.run_id == run_id
        and version.tags.get(_TRIAL) == described["trial"]
        # Versions from before this tag existed are recognised by their trial alone.
        and version.tags.get(_WEIGHTS, weights) == weights
    ]
    own = known[0] if known else None
    if own is None:
        tags = {_SELECTION: selection, _SCORE: repr(score), _TRIAL: described["trial"]}
        tags[_WEIGHTS] = weights
        card = card_text((model / "README.md").read_text(encoding="utf-8"))
        with _tracking_at(uri):
            info = _log(model, run_id, described)
            own = client.create_model_version(
                name, info.model_uri, run_id, tags, description=card, model_id=info.model_id
            )
    champion, reason = _compare(own, _champion(client, name))
    if champion:
        client.set_registered_model_alias(name, CHAMPION, own.version)
    return Registered(name, str(own.version), champion, reason)


def _champion(client: MlflowClient, name: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _compare(own: ModelVersion, holder: ModelVersion | None) -> tuple[bool, str]:
    """Return whether a version becomes the champion, and why."""
    if holder is None:
        return True, "the first"
    if str(holder.version) == str(own.version):
        return True, "as before"
    metric = own.tags[_SELECTION]
    before = f"version {holder.version}"
    if holder.tags.get(_SELECTION) != metric:
        return False, f"{before} was not chosen by {metric}, so the two cannot be compared"
    score, other = float(own.tags[_SCORE]), float(holder.tags[_SCORE])
    scores = f"{metric} is {100 * score:.1f} % against {100 * other:.1f} % of {before}"
    return score > other, scores


@contextlib.contextmanager
def _tracking_at(uri: str) -> Iterator[None]:
    """Set the process-wide tracking URI, through which MLflow resolves model metadata."""
    import mlflow

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logger = logging.getLogger("mlflow")
    before, level = mlflow.get_tracking_uri(), logger.level
    mlflow.set_tracking_uri(uri)
    # MLflow logs each step at level INFO.
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
        logger.setLevel(level)


def _log(model: Path, run_id: str, described: dict[str, Any]) -> ModelInfo:
    """Log a model's folder as an MLflow model, and return MLflow's model info."""
    import mlflow
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    from xlt_ray.inference.answers import answer_columns

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    labels = [config["id2label"][str(number)] for number in range(len(config["id2label"]))]
    predicted, *classes = answer_columns(labels)
    texts = described["text_columns"]
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.string, text) for text in texts]),
        outputs=Schema(
            [
                ColSpec(DataType.string, predicted),
                *(ColSpec(DataType.float, name) for name in classes),
            ]
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        # The package's source, without the demo's data.
        source = Path(folder) / "xlt_ray"
        shutil.copytree(
            Path(__file__).parents[1],
            source,
            ignore=shutil.ignore_patterns("__pycache__", "demo", "tasks", "search_spaces"),
        )
        return Model.log(
            artifact_path=None,
            name=BEST_MODEL,
            flavor=mlflow.pyfunc,
            run_id=run_id,
            loader_module="xlt_ray.serving",
            data_path=str(model),
            code_paths=[str(source)],
            signature=signature,
            input_example=pd.DataFrame({text: [f"A {text}."] for text in texts}),
            pip_requirements=[
                f"{package}=={importlib.metadata.version(package).partition('+')[0]}"
                for package in ("mlflow", *REQUIREMENTS)
            ],
        )
