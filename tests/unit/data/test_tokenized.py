"""Tokenising once: the ids are the tokenizer's own, and the cache knows what it depends on."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value, concatenate_datasets, enable_progress_bars
from transformers import AutoTokenizer

from tests.support.tiny_encoder import DEFAULT_TEXTS, tiny_encoder
from xlt_ray.config.task import DataSource, FileSource, TaskSpec, with_data_dir
from xlt_ray.data.tokenized import TokenizedTask, token_rows, tokenize_task
from xlt_ray.errors import UserError

PAIRS = {
    "en": [
        ("The old man reads", "A man reads", 0),
        ("Two children play football near the big river", "Nobody", 2),
        ("A woman cooks", "A warm meal", 1),
    ],
    "de": [
        ("Der alte Mann liest", "Ein Mann liest", 0),
        ("Zwei Kinder spielen am großen Fluss Fußball", "Niemand", 2),
        ("Sie kocht", "Ein Buch", 1),
    ],
}


def write_task(folder: Path) -> TaskSpec:
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "dev", "test"):
        for language, rows in PAIRS.items():
            if split == "train" and language != "en":
                continue
            lines = [f"{a} {split}\t{b}\t{label}\n" for a, b, label in rows]
            (folder / f"{split}-{language}.tsv").write_text("".join(lines), encoding="utf-8")
    anywhere = FileSource(train="t{language}.csv", dev="d{language}.csv", test="t{language}.csv")
    task = TaskSpec(
        name="small",
        target_languages=("de",),
        text_columns=("premise", "hypothesis"),
        labels=("entailment", "neutral", "contradiction"),
        data=DataSource(files=anywhere),
    )
    return with_data_dir(task, folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("bert"), "bert", texts=DEFAULT_TEXTS)


@pytest.fixture(scope="module")
def xlmr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("xlmr"), "xlm-roberta", texts=DEFAULT_TEXTS)


@pytest.mark.parametrize("family", ["bert", "xlmr"])
@pytest.mark.parametrize("max_length", [64, 9])
def test_ids_are_what_the_tokenizer_gives_for_each_pair(
    tmp_path: Path, family: str, max_length: int, request: pytest.FixtureRequest
) -> None:
    encoder: Path = request.getfixturevalue(family)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    prepared = tokenize_task(
        write_task(tmp_path / "data"), str(encoder), max_length, tmp_path / "cache"
    )

    def expected(a: str, b: str) -> dict[str, list[int]]:
        return dict(tokenizer(a, b, truncation="longest_first", max_length=max_length))

    train = prepared.train()
    assert len(train) == 3
    for row, (a, b, label) in zip(train, PAIRS["en"], strict=True):
        assert (row["text_a"], row["text_b"], row["label"]) == (f"{a} train", b, label)
        assert row["input_ids"] == expected(f"{a} train", b)["input_ids"]
        assert row["length"] == len(row["input_ids"]) <= max_length
        if family == "bert":
            assert row["token_type_ids"] == expected(f"{a} train", b)["token_type_ids"]
            assert {0, 1} == set(row["token_type_ids"])
        else:
            assert "token_type_ids" not in row
    assert train["row"][:] == [0, 1, 2]
    for split in ("dev", "test"):
        rows = prepared.evaluation(split)
        assert len(rows) == 6
        for row in rows:
            a, b, label = PAIRS[prepared.languages[row["language"]]][row["row"]]
            assert row["input_ids"] == expected(f"{a} {split}", b)["input_ids"]
            assert row["label"] == label
        assert [(r["language"], r["row"]) for r in rows] == [
            (i, j) for i in (0, 1) for j in range(3)
        ]


def test_dev_keeps_its_texts_and_test_does_not(tmp_path: Path, bert: Path) -> None:
    prepared = tokenize_task(write_task(tmp_path / "data"), str(bert), 64, tmp_path / "cache")
    dev = prepared.evaluation("dev")
    kept = list(zip(dev["language"], dev["row"], dev["text_a"], dev["text_b"], strict=True))
    assert kept == [
        (number, row, f"{a} dev", b)
        for number, code in enumerate(("en", "de"))
        for row, (a, b, _) in enumerate(PAIRS[code])
    ]
    columns = set(prepared.evaluation("test").column_names)
    assert columns == set(dev.column_names) - {"text_a", "text_b"}


def test_opening_needs_neither_the_text_nor_the_tokenizer(tmp_path: Path, bert: Path) -> None:
    encoder = shutil.copytree(bert, tmp_path / "encoder")
    prepared = tokenize_task(write_task(tmp_path / "data"), str(encoder), 64, tmp_path / "cache")
    before = prepared.evaluation("dev")[:]
    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(encoder)
    opened = TokenizedTask.open(prepared.folder)
    assert opened == prepared and opened.languages == ("en", "de") and opened.task == "small"
    assert opened.evaluation("dev")[:] == before
    # Memory-mapped: the rows are read from a file of the folder.
    assert all(prepared.folder in Path(f["filename"]).parents for f in opened.train().cache_files)


def test_limits_take_the_first_rows_of_every_language(tmp_path: Path, bert: Path) -> None:
    task = write_task(tmp_path / "data")
    limited = tokenize_task(
        task, str(bert), 64, tmp_path, train_limit=2, dev_limit=1, test_limit=99
    )
    assert limited.train()["row"][:] == [0, 1]
    dev = limited.evaluation("dev")
    assert list(zip(dev["language"], dev["row"], strict=True)) == [(0, 0), (1, 0)]
    assert len(limited.evaluation("test")) == 6


def test_the_second_time_nothing_is_written(tmp_path: Path, bert: Path) -> None:
    task, cache = write_task(tmp_path / "data"), tmp_path / "cache"
    first = tokenize_task(task, str(bert), 64, cache)
    stamps = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert tokenize_task(task, str(bert), 64, cache) == first
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == stamps
    assert [path for path in cache.iterdir() if path != first.folder] == []


def test_the_folder_depends_on_content_and_not_on_places(tmp_path: Path, bert: Path) -> None:
    task, cache = write_task(tmp_path / "data"), tmp_path / "cache"
    first = tokenize_task(task, str(bert), 64, cache).folder

    elsewhere = write_task(tmp_path / "moved")
    moved = shutil.copytree(bert, tmp_path / "encoder")
    (moved / "tokenizer_backup").mkdir()
    assert tokenize_task(elsewhere, str(moved), 64, cache).folder == first

    others: dict[str, Path] = {
        "max_length": tokenize_task(task, str(bert), 63, cache).folder,
        "limit": tokenize_task(task, str(bert), 64, cache, dev_limit=2).folder,
        "labels": tokenize_task(
            task.model_copy(update={"labels": tuple(reversed(task.labels))}), str(bert), 64, cache
        ).folder,
    }
    file = moved / "tokenizer.json"
    changed: dict[str, Any] = json.loads(file.read_text())
    changed["normalizer"]["lowercase"] = True
    file.write_text(json.dumps(changed))
    others["tokenizer"] = tokenize_task(task, str(moved), 64, cache).folder
    text = tmp_path / "data" / "test-de.tsv"
    text.write_text(text.read_text().replace("Niemand", "Keiner"))
    others["data"] = tokenize_task(task, str(bert), 64, cache).folder
    assert len({first, *others.values()}) == 1 + len(others)


def _prepare_in_process(arguments: tuple[TaskSpec, str, Path, Any]) -> None:
    task, encoder, cache, barrier = arguments
    barrier.wait(timeout=60)
    tokenize_task(task, encoder, 64, cache)


def test_two_processes_at_once_leave_one_whole_folder(tmp_path: Path, bert: Path) -> None:
    task, cache = write_task(tmp_path / "data"), tmp_path / "cache"
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [
        context.Process(target=_prepare_in_process, args=((task, str(bert), cache, barrier),))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    (folder,) = cache.iterdir()
    assert len(TokenizedTask.open(folder).evaluation("test")) == 6


def test_a_failed_build_leaves_nothing_behind(tmp_path: Path, bert: Path) -> None:
    task, cache = write_task(tmp_path / "data"), tmp_path / "cache"
    (tmp_path / "data" / "test-de.tsv").write_text("a\tb\tmaybe\n")
    with pytest.raises(UserError, match=r"test-de\.tsv, line 1: unknown label 'maybe'"):
        tokenize_task(task, str(bert), 64, cache)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("max_length", [4, 129])
def test_max_length_must_suit_the_tokenizer(tmp_path: Path, bert: Path, max_length: int) -> None:
    # [CLS] a [SEP] b [SEP] needs 5; the tiny encoder has 128 positions.
    with pytest.raises(UserError, match=f"max_length {max_length} .* >= 5 and <= 128"):
        tokenize_task(write_task(tmp_path / "data"), str(bert), max_length, tmp_path / "cache")


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"model '.*empty': its tokenizer cannot be loaded"):
        tokenize_task(write_task(tmp_path / "data"), str(empty), 64, tmp_path / "cache")


def test_token_rows_are_the_column_s_lists() -> None:
    features = Features({"ids": List(Value("int32"))})
    lists = [[1, 2, 3], [4], [], [5, 6], [7]]
    parts = [Dataset.from_dict({"ids": part}, features) for part in (lists[:2], lists[2:])]
    whole = concatenate_datasets(parts)  # stored in two chunks

    def found(data: Dataset) -> list[list[int]]:
        rows = token_rows(data, "ids")
        assert all(row.dtype == np.int64 for row in rows)
        return [row.tolist() for row in rows]

    assert found(whole) == lists
    assert found(whole.select(range(1, 4))) == lists[1:4]
    assert found(whole.select([4, 0, 2])) == [lists[4], lists[0], lists[2]]


def test_a_log_has_no_progress_bars(
    bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    enable_progress_bars()
    tokenize_task(write_task(tmp_path / "data"), str(bert), 64, tmp_path / "cache")
    assert "Tokenising" not in capfd.readouterr().err
