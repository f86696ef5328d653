"""Read and check the labelled texts of a task; tokenising and data checks call it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from xlt_ray.config.task import TaskSpec
from xlt_ray.data.rows import read_rows
from xlt_ray.errors import UserError, nearest

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Examples:
    """Checked examples.

    Attributes:
        texts: The texts of each text column, in the task's order.
        labels: Class ids.
    """

    texts: tuple[list[str], ...]
    labels: list[int]

    def first(self, limit: int | None) -> Examples:
        """Return the first ``limit`` of them; None: all."""
        return Examples(tuple(column[:limit] for column in self.texts), self.labels[:limit])

    def dataset(self) -> Dataset:
        """Return them as columns ``text_a``, ``text_b`` (pairs only) and ``label``."""
        from datasets import Dataset

        names = ("text_a", "text_b")[: len(self.texts)]
        return Dataset.from_dict(
            {**dict(zip(names, self.texts, strict=True)), "label": self.labels}
        )


def read_examples(task: TaskSpec, files: Sequence[Path]) -> Examples:
    """Read and check the examples of some files, one after the other.

    Args:
        task: The task.
        files: Files of one split and language, as :func:`find_files` returns them.

    Raises:
        UserError: If a row is wrong or there are none.
    """
    ids = _class_ids(task)
    texts: tuple[list[str], ...] = tuple([] for _ in task.text_columns)
    labels: list[int] = []
    for path in files:
        rows = read_rows(path, task)
        for column, name in zip(texts, task.text_columns, strict=True):
            values = rows.columns[name]
            for index, value in enumerate(values):
                if not isinstance(value, str) or not value or value.isspace():
                    what = "is empty" if value is None or isinstance(value, str) else "is not text"
                    raise UserError(
                        f"{rows.where(index)}: the text in column '{name}' {what}; "
                        "fill it in or remove the row (in every language)"
                    )
            column.extend(cast(list[str], values))
        for index, value in enumerate(rows.columns[task.label_column]):
            label = ids.get(value if isinstance(value, str) else str(value))
            if label is None:
                raise UserError(f"{rows.where(index)}: {_unknown_label(str(value), task)}")
            labels.append(label)
    if not labels:
        raise UserError(f"{', '.join(map(str, files))}: there are no rows")
    return Examples(texts, labels)


def _class_ids(task: TaskSpec) -> dict[str, int]:
    """Map each valid value of the label column to its class id."""
    ids = {name: index for index, name in enumerate(task.labels)}
    # Where a name is itself a number, an id would be ambiguous.
    if not any(name.isdigit() for name in task.labels):
        ids |= {str(index): index for index in range(len(task.labels))}
    return ids | {raw: ids[name] for raw, name in task.label_values.items()}


def _unknown_label(label: str, task: TaskSpec) -> str:
    hint = nearest(label, task.labels)
    valid = f"; valid: {', '.join(task.labels)}" if "did you mean" in hint else hint
    suggestion = hint if "did you mean" in hint else ""
    missing = ", which data sets put where a label is missing" if label == "-1" else ""
    return f"unknown label '{label}'{missing}{suggestion}{valid}"
