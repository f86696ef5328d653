"""Class ids and text columns of labelled texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.task_files import files_task, xtreme
from xlt_ray.data.sources import load_split
from xlt_ray.errors import UserError


def test_labels_may_be_names_ids_or_declared_values(tmp_path: Path) -> None:
    task = xtreme(tmp_path, b"a\tb\tneutral\na\tb\t1\na\tb\tmeh\n")
    task = task.model_copy(update={"label_values": {"meh": "neutral"}})
    assert load_split(task, "dev", "de")["label"][:] == [1, 1, 1]
    (tmp_path / "dev-de.jsonl").write_text(
        json.dumps({"premise": "a", "hypothesis": "b", "label": 2}) + "\n"
    )
    assert load_split(files_task(tmp_path, "jsonl"), "dev", "de")["label"][:] == [2]


def test_declared_values_come_before_ids(tmp_path: Path) -> None:
    task = xtreme(tmp_path, b"a\tb\t0\n")
    task = task.model_copy(update={"label_values": {"0": "contradiction"}})
    assert load_split(task, "dev", "de")["label"][:] == [2]


def test_numbers_as_class_names_are_names_and_not_ids(tmp_path: Path) -> None:
    task = xtreme(tmp_path, b"a\tb\t1\n").model_copy(update={"labels": ("1", "2", "3")})
    assert load_split(task, "dev", "de")["label"][:] == [0]
    (tmp_path / "dev-de.tsv").write_bytes(b"a\tb\t0\n")
    with pytest.raises(UserError, match="unknown label '0'"):
        load_split(task, "dev", "de")


def test_single_texts_have_no_second_column(tmp_path: Path) -> None:
    (tmp_path / "dev-de.csv").write_text("text,label\nhallo,neutral\n")
    task = files_task(tmp_path, "csv").model_copy(update={"text_columns": ("text",)})
    split = load_split(task, "dev", "de")
    assert split.column_names == ["text_a", "label"] and split[0]["text_a"] == "hallo"
