"""Flags that several commands share, and how flags become keys of the spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from xlt_ray.config.loading import parse_overrides
from xlt_ray.errors import UserError

Address = Annotated[
    str | None,
    typer.Option(
        envvar="XLT_RAY_ADDRESS",
        help="Ray cluster to join: 'auto', or host:port. Default: $RAY_ADDRESS, else "
        "a cluster on this machine that ends with the search.",
    ),
]
Storage = Annotated[
    str,
    typer.Option(envvar="XLT_RAY_STORAGE", help="Folder or s3:// / gs:// URI for checkpoints."),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        help="MLflow tracking URI. Default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."
    ),
]
Experiment = Annotated[
    str | None, typer.Option(help="MLflow experiment. Default: the search's name.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the task's data in XTREME's TSV layout (train-en.tsv, "
        "dev-XX.tsv, test-XX.tsv), instead of the hub's."
    ),
]
Languages = Annotated[
    str | None,
    typer.Option(
        metavar="XX,XX",
        help="Codes of the target languages. Default: the task's. Other languages are possible if "
        "there is data for them.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Short name such as mmbert-base or xlmr-base, hub name, local folder, or "
        "packaged/multilingual-e5-small."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of the spec, such as training.max_steps=100; repeatable.",
    ),
]
DryRun = Annotated[
    bool, typer.Option(help="Check everything except training, show the plan and exit.")
]
FineTuned = Annotated[
    Path, typer.Option(help="Folder of a model, such as runs/NAME-DATE/best-model.")
]
Device = Annotated[
    str | None, typer.Option(help="Such as cpu or cuda:0. Default: a GPU if there is one.")
]


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Return the keys whose flags the user set, i.e. whose value is not None."""
    return {key: value for key, value in values.items() if value is not None}


def codes(languages: str | None) -> list[str] | None:
    """Split the codes of languages that a flag lists; None if it was not given."""
    return None if languages is None else [code.strip() for code in languages.split(",")]


def spec_changes(overrides: list[str] | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Merge `--set` with the flags that set keys of the spec.

    Args:
        overrides: `KEY=VALUE` texts of `--set`.
        flags: Values of other flags, by key of the spec.

    Returns:
        Values by key.

    Raises:
        UserError: If an override is malformed, or `--set` and a flag set the same key.
    """
    changes = parse_overrides(overrides or [])
    for key in changes.keys() & flags.keys():
        raise UserError(f"--set {key}: another flag sets this key too; remove one of the two")
    return changes | flags
