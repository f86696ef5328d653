"""The rows of a task that are tried before a search."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.core_toy import Toy
from tests.support.task_files import files_task, xtreme
from tests.support.tiny_encoder import Family
from xlt_ray.config.task import load_task
from xlt_ray.data.labelled import Examples, read_examples
from xlt_ray.data.sample import FIRST_ROWS, TaskSample, sample_rows
from xlt_ray.data.sources import read_splits
from xlt_ray.encoders.loading import load_tokenizer


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
            assert premise == " ".join(["He", "said", "no"] * 5 + ["He"])
            found = found.first(len(rows.labels))
        assert found == rows


def test_labels_that_look_like_numbers_stay_texts(tmp_path: Path) -> None:
    """The loader takes `1e1` without quotes for a number."""
    task = files_task(tmp_path, "tsv").model_copy(update={"labels": ("1e1", "1e2", "016", "yes")})
    sample = TaskSample(task, {("train", "en"): Examples((["one", "two"],) * 2, [0, 1])})
    written = load_task(sample.write(tmp_path, max_length=16))
    assert written.labels == task.labels
    assert read_examples(written, [tmp_path / "train-en.jsonl"]).first(2).labels == [0, 1]


@pytest.mark.parametrize("text", ["word " * 9, "x" * 300_000, "\U0001f600", "\u200b", "花园", "a"])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_the_repeated_text_has_full_length_whatever_it_is(
    toy: Toy, tmp_path: Path, text: str, family: Family
) -> None:
    sample = TaskSample(
        files_task(tmp_path, "tsv"), {("train", "en"): Examples(([text],) * 2, [0])}
    )
    written = load_task(sample.write(tmp_path, max_length=64))
    first, _ = read_examples(written, [tmp_path / "train-en.jsonl"]).texts
    tokenizer = load_tokenizer(str(toy.encoder(family)))
    assert 64 <= len(tokenizer(first[-1], add_special_tokens=False)["input_ids"]) < 64 * 21
