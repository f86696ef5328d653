"""A small pair task whose data files tests write."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlt_ray.config.task import DataSource, FileSource, Split, TaskSpec, with_data_dir
from xlt_ray.data.sources import load_split, read_splits
from xlt_ray.errors import UserError

LABELS = ("entailment", "neutral", "contradiction")


ROWS = [
    ('He said "no".', "He refused, plainly.", "entailment"),
    ("It rains", 'A "quote', "neutral"),
    ("über Straßen, Flüsse", "在花园里", "contradiction"),
]


def files_task(folder: Path, kind: str) -> TaskSpec:
    """A pair task over en and de whose files are ``folder/SPLIT-XX.KIND``."""
    source = FileSource(
        train=str(folder / f"train-{{language}}.{kind}"),
        dev=str(folder / f"dev-{{language}}.{kind}"),
        test=str(folder / f"test-{{language}}.{kind}"),
    )
    return TaskSpec(
        name="small",
        target_languages=("de",),
        text_columns=("premise", "hypothesis"),
        labels=LABELS,
        data=DataSource(files=source),
    )


def xtreme(folder: Path, dev_de: bytes | None = None) -> TaskSpec:
    """The three rows above in XTREME's layout; ``dev_de`` replaces the German dev file."""
    text = "".join("\t".join(row) + "\n" for row in ROWS).encode()
    for name in ("train-en", "dev-en", "dev-de", "test-en", "test-de"):
        (folder / f"{name}.tsv").write_bytes(text)
    if dev_de is not None:
        (folder / "dev-de.tsv").write_bytes(dev_de)
    return with_data_dir(files_task(folder, "tsv"), folder)


def check_data(task: TaskSpec) -> dict[tuple[Split, str], int]:
    """Read all data of a task; return the number of rows of each split and language."""
    return {key: len(examples.labels) for key, examples in read_splits(task)}


def triples(task: TaskSpec, language: str = "de") -> list[tuple[str, str, str]]:
    split = load_split(task, "dev", language).dataset()
    return [(row["text_a"], row["text_b"], LABELS[row["label"]]) for row in split]


def mistake(task: TaskSpec) -> str:
    with pytest.raises(UserError) as error:
        check_data(task)
    assert "\n" not in str(error.value)
    return str(error.value)
