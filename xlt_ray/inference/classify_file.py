"""Classify the rows of a file; `xlt-ray predict` calls it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from xlt_ray.errors import UserError
from xlt_ray.inference.answers import answer_columns
from xlt_ray.inference.classifier import Classifier
from xlt_ray.inference.text_files import TextFile, require, row_writer

_CHUNK_ROWS = 4096
"""Rows that are classified together, sorted by length; a chunk takes a few megabytes."""


def classify_file(
    classifier: Classifier,
    file: TextFile,
    output: Path,
    text_columns: Sequence[str] | None = None,
    on_progress: Callable[[int], None] = lambda position: None,
) -> int:
    """Classify the rows of a file of any size, chunk by chunk.

    Args:
        classifier: The classifier.
        file: The texts.
        output: File to write: the rows with their columns, `predicted` and `probability/<class>`.
            It appears when all rows are classified.
        text_columns: The columns of the text or of the two texts; None: the task's, or `text`.
        on_progress: Called after each row with the number of bytes read so far.

    Returns:
        The number of rows.

    Raises:
        UserError: If the file is malformed or has no rows, a text column is missing, the number of
            text columns differs from the task's, the file already has an added column, or its
            format cannot hold a class.
    """
    task = classifier.text_columns
    names = list(text_columns or task or ("text",))
    if len(names) > 2 or (task is not None and len(names) != len(task)):
        expected = f"{len(task)} ({', '.join(task)})" if task else "1 or 2"
        raise UserError(f"--text: the model takes {expected}, not {len(names)}")
    added = answer_columns(classifier.labels)
    file.check_added(classifier.labels)
    count = 0
    with row_writer(output) as write:
        rows = file.rows(on_progress)
        while chunk := list(itertools.islice(rows, _CHUNK_ROWS)):
            for place, row in chunk:
                require(place, names, row)
                if taken := [name for name in added if name in row]:
                    raise UserError(f"{place}: there is a column '{taken[0]}' already")
            texts = [tuple(row[name] for name in names) for _, row in chunk]
            answers = classifier.predict(texts)
            for (_, row), label, found in zip(chunk, *answers, strict=True):
                values = [round(float(value), 6) for value in found]
                write(row, dict(zip(added, [label, *values], strict=True)))
            count += len(chunk)
        if not count:
            raise UserError(f"{file.path}: there are no rows")
    return count
