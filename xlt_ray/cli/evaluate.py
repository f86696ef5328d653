"""`xlt-ray evaluate`: score a model on a task, language by language."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from xlt_ray.cli import flags


# Each parameter is a flag of the command line.
def evaluate(
    model: flags.FineTuned,
    task: Annotated[
        str, typer.Option(help="A task, such as xnli, sib200 or demo, or the path of one.")
    ],
    languages: Annotated[
        str | None,
        typer.Option(
            metavar="XX,XX",
            help="Codes of the languages. Default: the task's. Other languages are possible if "
            "there is data for them.",
        ),
    ] = None,
    split: Annotated[Literal["test", "dev"], typer.Option(help="Split to score.")] = "test",
    data_dir: flags.DataDir = None,
    alignment: Annotated[
        bool,
        typer.Option(
            "--alignment",
            help="Also measure how close the embeddings of translations are; needs parallel data.",
        ),
    ] = False,
    generalized: Annotated[
        bool,
        typer.Option(
            "--generalized",
            help="Also score every pair of a premise language and a hypothesis language; needs "
            "parallel data with text pairs.",
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="JSON file for all results, unrounded.")
    ] = None,
    device: flags.Device = None,
) -> None:
    """Score a model on a task, language by language, with 95 % intervals (Wilson).

    The model is the best-model/ of a search, or any fine-tuned Hugging Face classifier whose
    classes have the names of the task's.
    """
    # These imports come after the flags are parsed, and torch after the request is checked.
    from xlt_ray.inference.scoring import ScoringRequest, check_output, task_to_score
    from xlt_ray.report.score_tables import show

    codes = flags.codes(languages)
    scored = task_to_score(task, data_dir, codes)
    request = ScoringRequest(model, scored, codes, split, alignment, generalized)
    request.check()
    if output is not None:
        check_output(output)
    scores = request.score(device)
    if output is not None:
        scores.write(output)
    show(scores, Console())
