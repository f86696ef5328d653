"""Classifying the rows of a file of any size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from xlt_ray.errors import UserError
from xlt_ray.inference.classifier import Classifier, answer_columns
from xlt_ray.inference.text_files import TextFile, require, row_writer

_CHUNK_ROWS = 4096
"""Rows that are sorted by length and classified together: some megabytes of text."""


def classify_file(
    classifier: Classifier,
    file: TextFile,
    output: Path,
    text_columns: Sequence[str] | None,
    console: Console,
) -> int:
    """Classify the rows of a file, chunk by chunk, so that it may be of any size.

    Args:
        classifier: The classifier.
        file: The texts.
        output: Gets the rows with their columns and `predicted`, `probability/<class>`; it appears
            when all is done.
        text_columns: The columns of the text or the two texts; None: the task's, or `text`.
        console: Shows how much is done.

    Returns:
        The number of rows.

    Raises:
        UserError: If the file is wrong, a text column is missing or none, or its number is not
            that of the task, or an added column is there already.
    """
    task = classifier.text_columns
    names = list(text_columns or task or ("text",))
    if len(names) > 2 or (task is not None and len(names) != len(task)):
        wanted = f"{len(task)} ({', '.join(task)})" if task else "1 or 2"
        raise UserError(f"--text: the model takes {wanted}, not {len(names)}")
    added = answer_columns(classifier.labels)
    progress = Progress(
        *Progress.get_default_columns(), console=console, disable=not console.is_terminal
    )
    count = 0
    with progress, row_writer(output) as write:
        bar = progress.add_task("Classifying", total=file.path.stat().st_size)
        rows = file.rows(lambda position: progress.update(bar, completed=position))
        while chunk := list(itertools.islice(rows, _CHUNK_ROWS)):
            for place, row in chunk:
                require(place, names, row)
                if taken := [name for name in added if name in row]:
                    raise UserError(f"{place}: there is a column '{taken[0]}' already")
            texts = [tuple(row[name] for name in names) for _, row in chunk]
            answers = classifier.predict(texts)
            for (_, row), label, found in zip(chunk, *answers, strict=True):
                values = [round(float(value), 6) for value in found]
                write(row | dict(zip(added, [label, *values], strict=True)))
            count += len(chunk)
        if not count:
            raise UserError(f"{file.path}: there are no rows")
    return count
