"""The rows of a task that are tried before a search."""

from __future__ import annotations

from pathlib import Path

from tests.support.task_files import xtreme
from xlt_ray.config.task import load_task
from xlt_ray.data.labelled import Examples
from xlt_ray.data.sample import FIRST_ROWS, TaskSample, sample_rows
from xlt_ray.data.sources import read_splits


def test_the_longest_the_shortest_and_the_oddest_row_are_in_it() -> None:
    texts = ["a text"] * 300
    texts[150], texts[200], texts[250] = "a text of many words", "x", "a #+?"
    sample = sample_rows(Examples((texts,), list(range(300))))
    assert sample.labels == [*range(FIRST_ROWS), 150, 200, 250]
    assert sample.texts[0][FIRST_ROWS:] == ["a text of many words", "x", "a #+?"]


def test_a_small_split_is_whole_and_each_row_once() -> None:
    rows = Examples((["b", "a longer text"], ["", "!"]), [1, 0])
    assert sample_rows(rows) == rows


def test_a_written_sample_reads_as_the_same_rows_and_one_of_full_length(tmp_path: Path) -> None:
    """Whatever values the task's own files have for a class."""
    task = xtreme(tmp_path).model_copy(update={"label_values": {"neutral": "entailment"}})
    sample = TaskSample(task, {key: sample_rows(rows) for key, rows in read_splits(task)})
    assert sample.examples["dev", "de"].labels == [0, 0, 2]
    (tmp_path / "sample").mkdir()
    written = load_task(sample.write(tmp_path / "sample", max_length=16))
    read = dict(read_splits(written))
    assert list(read) == list(sample.examples)
    for (split, language), rows in sample.examples.items():
        found = read[split, language]
        if split == "train":
            *_, premise = found.texts[0]
            assert premise == ('He said "no". ' * 30)[: 16 * 20].rstrip()
            found = found.first(len(rows.labels))
        assert found == rows
