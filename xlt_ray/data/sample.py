"""A few rows of every split and language, with the longest and the oddest; the probe tries them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xlt_ray.config.loading import dump_yaml
from xlt_ray.config.task import LANGUAGE, DataSource, FileSource, Split, TaskSpec
from xlt_ray.data.labelled import Examples

FIRST_ROWS = 100
"""Rows from the start of a split: enough to see which pieces a language has."""

_USUAL = re.compile(r"[\w\s]+")
_WORD = re.compile(r"\w{1,20}")


@dataclass(frozen=True)
class TaskSample:
    """Some rows of a task, in files of their own once they are written."""

    task: TaskSpec
    """The task."""
    examples: Mapping[tuple[Split, str], Examples]
    """Rows of each split and language: the first ones, then the longest, the shortest and the one
    with the most characters that are neither letters, digits nor white space."""

    def write(self, folder: Path, max_length: int) -> Path:
        """Write the sample as a task; return the path of its YAML file.

        Its last training row has the first texts' words, repeated until there are as many as the
        longest input has tokens.

        Args:
            folder: An existing folder.
            max_length: Longest input in tokens.
        """
        for (split, language), examples in self.examples.items():
            rows = list(zip(*examples.texts, examples.labels, strict=True))
            if split == "train":
                *texts, label = rows[0]
                rows.append((*(_repeated(text, max_length) for text in texts), label))
            names = (*self.task.text_columns, self.task.label_column)
            lines = [
                json.dumps(dict(zip(names, (*texts, self.task.labels[label]), strict=True)))
                for *texts, label in rows
            ]
            path = folder / f"{split}-{language}.jsonl"
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        files = FileSource(
            train=f"train-{LANGUAGE}.jsonl",
            dev=f"dev-{LANGUAGE}.jsonl",
            test=f"test-{LANGUAGE}.jsonl",
        )
        # Labels are names here, so the values that the task's own files use are not needed.
        task = self.task.model_copy(update={"data": DataSource(files=files), "label_values": {}})
        path = folder / "task.yaml"
        path.write_text(dump_yaml(task.model_dump(mode="json")), encoding="utf-8")
        return path


def sample_rows(examples: Examples) -> Examples:
    """Return the rows of a split and language that a sample has.

    Args:
        examples: All rows that a search uses.
    """
    rows = range(len(examples.labels))
    lengths = [sum(len(column[row]) for column in examples.texts) for row in rows]
    odd = [
        sum(len(_USUAL.sub("", column[row])) for column in examples.texts) if lengths[row] else 0
        for row in rows
    ]
    special = (
        max(rows, key=lengths.__getitem__),
        min(rows, key=lengths.__getitem__),
        max(rows, key=odd.__getitem__),
    )
    return _only(examples, dict.fromkeys([*rows[:FIRST_ROWS], *special]))


def _only(examples: Examples, rows: Iterable[int]) -> Examples:
    chosen = list(rows)
    return Examples(
        tuple([column[row] for row in chosen] for column in examples.texts),
        [examples.labels[row] for row in chosen],
    )


def _repeated(text: str, max_length: int) -> str:
    """Return so many words, short ones, that each of them has a token of its own."""
    # A text of emoji may have none, or a word that a tokenizer removes.
    words = _WORD.findall(text) or ["a"]
    return " ".join(itertools.islice(itertools.cycle(words), max_length))
