"""`xlt-ray predict`: classify the texts of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from xlt_ray.cli import flags


def predict(
    model: flags.FineTuned,
    input: Annotated[
        Path,
        typer.Option(
            help="File of texts: .tsv (no quoting), .csv or .jsonl, in UTF-8; .gz may follow."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="File to write, with the same ending: the rows of the input, each with its class "
            "(predicted) and the probability of every class."
        ),
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="The column of the text; twice for a pair. Default: the columns of the task.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Names of all columns of a TSV or CSV file that has no header.",
        ),
    ] = None,
    device: flags.Device = None,
) -> None:
    """Classify the texts of a file, in any language."""
    # Mistakes in the flags are reported before torch and the model are loaded.
    from xlt_ray.inference.text_files import TextFile

    header = None if columns is None else columns.split(",")
    file = TextFile(input, header)
    file.check_output(output)
    from xlt_ray.inference.classifier import Classifier
    from xlt_ray.inference.classify_file import classify_file

    classifier = Classifier.load(model, device)
    console = Console(stderr=True)
    progress = Progress(
        *Progress.get_default_columns(), console=console, disable=not console.is_terminal
    )
    with progress:
        bar = progress.add_task("Classifying", total=file.path.stat().st_size)
        rows = classify_file(
            classifier,
            file,
            output,
            text or None,
            lambda position: progress.update(bar, completed=position),
        )
    console.print(f"{rows} rows, in {output}", soft_wrap=True, highlight=False, markup=False)
