"""`xlt-ray export`: write a model in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xlt_ray.cli import flags


def export(
    model: flags.FineTuned,
    onnx: Annotated[
        Path,
        typer.Option(
            help="Folder to write: model.onnx, the tokenizer, the configuration and the task."
        ),
    ],
) -> None:
    """Write a model as ONNX, and check that it answers as the original does."""
    # torch takes seconds to load.
    from xlt_ray.inference.onnx import MODEL_FILE, export_onnx

    difference = export_onnx(model, onnx)
    print(
        f"{onnx / MODEL_FILE}: probabilities differ from the original's by at most {difference:.1g}"
    )
