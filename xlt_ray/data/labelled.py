"""Read and check the labelled texts of a task; tokenising and data checks call it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from xlt_ray.config.task import TaskSpec
from xlt_ray.data.card import card_classes
from xlt_ray.data.labels import ClassIds
from xlt_ray.data.rows import LONE_SURROGATE, Rows, has_lone_surrogate, read_rows
from xlt_ray.errors import UserError

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
    texts: tuple[list[str], ...] = tuple([] for _ in task.text_columns)
    labels: list[int] = []
    for path in files:
        rows = read_rows(path, task)
        for column, name in zip(texts, task.text_columns, strict=True):
            _check_texts(rows, name)
            column.extend(cast(list[str], rows.columns[name]))
        labels += _labels(rows, task)
    if not labels:
        raise UserError(f"{', '.join(map(str, files))}: there are no rows")
    return Examples(texts, labels)


def _check_texts(rows: Rows, name: str) -> None:
    """Check the texts of a column."""
    for index, value in enumerate(rows.columns[name]):
        if not isinstance(value, str) or not value or value.isspace():
            what = "is empty" if value is None or isinstance(value, str) else "is not text"
            raise UserError(
                f"{rows.where(index)}: the text in column '{name}' {what}; "
                "fill it in or remove the row (in every language)"
            )
        if has_lone_surrogate(value):
            raise UserError(f"{rows.where(index)}: the text in column '{name}' {LONE_SURROGATE}")


def _labels(rows: Rows, task: TaskSpec) -> list[int]:
    """Return the class ids of a file's label column."""
    names = rows.classes
    if names is None and task.data.hub is not None:
        names = card_classes(rows.path, task)
    ids = ClassIds(task, names, f"{rows.path}, column '{task.label_column}'")
    # Equal values of different types, such as 1, 1.0 and True, may be different classes.
    known: dict[tuple[type, Any], int] = {}
    labels: list[int] = []
    for index, value in enumerate(rows.columns[task.label_column]):
        try:
            key = (type(value), value)
            label = known.get(key) if isinstance(value, Hashable) else None
            if label is None:
                label = known[key] = ids.of(value)
        except ValueError as error:
            raise UserError(f"{rows.where(index)}: {error}") from None
        labels.append(label)
    return labels
