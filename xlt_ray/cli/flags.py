"""Flags that several commands have, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Address = Annotated[
    str | None,
    typer.Option(
        envvar="XLT_RAY_ADDRESS",
        help="Ray cluster to join: 'auto', or host:port. Default: $RAY_ADDRESS, else "
        "a cluster on this machine for the time of the search.",
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
Model = Annotated[
    str | None,
    typer.Option(help="Hub name, local folder, or packaged/multilingual-e5-small."),
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
    bool, typer.Option(help="Check everything short of training, show the plan and exit.")
]
FineTuned = Annotated[
    Path, typer.Option(help="Folder of a model, such as runs/NAME-DATE/best-model.")
]
Device = Annotated[
    str | None, typer.Option(help="Such as cpu or cuda:0. Default: a GPU if there is one.")
]
