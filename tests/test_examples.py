"""Batches against the tokenizer's own output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets
from transformers import AutoTokenizer

from tests.core_toy import EXAMPLES, MAX_LENGTH, SYNONYMS, Toy, make_toy
from xlt_ray.examples import TrainingSet, evaluation_set, token_rows
from xlt_ray.preparation import prepare
from xlt_ray.views import SynonymView
from xlt_ray.vocabulary import Vocabulary

CPU = torch.device("cpu")
CHOSEN = np.array([5, 0, 31, 17])


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    folder = tmp_path_factory.mktemp("toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLT_RAY_CACHE", str(folder / "cache"))
        yield make_toy(folder)


def rows_of(toy: Toy, name: str) -> list[list[str]]:
    lines = (toy.folder / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines]


def ids_without_padding(batch: dict[str, torch.Tensor]) -> list[list[int]]:
    rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in rows]


def make_set(toy: Toy, family: Any, view: SynonymView | None, max_length: int = MAX_LENGTH) -> Any:
    spec = toy.spec({"training.max_length": max_length}, family=family)
    prepared = prepare(spec)
    tokenizer = AutoTokenizer.from_pretrained(prepared.tokenizer)
    return TrainingSet(prepared.task, tokenizer, max_length, view, None), tokenizer


@pytest.mark.parametrize("max_length", [MAX_LENGTH, 9])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_batch_is_the_texts_then_their_views(toy: Toy, family: str, max_length: int) -> None:
    view = SynonymView(SYNONYMS, 0.7, seed=3)
    training_set, tokenizer = make_set(toy, family, view, max_length)
    batch = training_set.batch(CHOSEN, epoch=2, device=CPU)
    texts = [rows_of(toy, "train-en")[i] for i in CHOSEN]
    pairs = [(first, second) for first, second, _ in texts]
    pairs += [
        (
            view.perturb(first, epoch=2, row=int(row), column=0),
            view.perturb(second, epoch=2, row=int(row), column=1),
        )
        for row, (first, second, _) in zip(CHOSEN, texts, strict=True)
    ]
    assert pairs[:4] != pairs[4:]
    expected = [
        tokenizer(a, b, truncation="longest_first", max_length=max_length) for a, b in pairs
    ]
    assert ids_without_padding(batch) == [row["input_ids"] for row in expected]
    if family == "bert":
        for found, row in zip(batch["token_type_ids"], expected, strict=True):
            segments = row["token_type_ids"]
            assert found.tolist() == segments + [0] * (len(found) - len(segments))
    else:
        assert "token_type_ids" not in batch
    padding = batch["input_ids"][batch["attention_mask"] == 0]
    assert set(padding.tolist()) <= {tokenizer.pad_token_id}
    assert batch["labels"].tolist() == [int(label == "blue") for _, _, label in texts]
    assert training_set.lengths[CHOSEN].tolist() == [len(r["input_ids"]) for r in expected[:4]]


def test_views_are_drawn_afresh_each_epoch_whatever_else_is_in_the_batch(toy: Toy) -> None:
    training_set, _ = make_set(toy, "bert", SynonymView(SYNONYMS, 0.5, seed=0))

    def views(examples: list[int], epoch: int) -> dict[int, list[int]]:
        batch = training_set.batch(np.array(examples), epoch, CPU)
        return dict(zip(examples, ids_without_padding(batch)[len(examples) :], strict=True))

    first = views(list(range(20)), epoch=0)
    assert views(list(range(20)), epoch=0) == first
    assert views(list(range(20)), epoch=1) != first
    alone = views([7], epoch=0)
    assert alone[7] == first[7]
    backwards = views([12, 7, 3], epoch=0)
    assert all(first[i] == ids for i, ids in backwards.items())


def test_method_without_views_has_the_texts_alone(toy: Toy) -> None:
    training_set, _ = make_set(toy, "bert", None)
    batch = training_set.batch(CHOSEN, epoch=0, device=CPU)
    assert len(batch["input_ids"]) == len(batch["labels"]) == 4


def test_evaluation_set_holds_every_language(toy: Toy) -> None:
    prepared = prepare(toy.spec({}))
    tokenizer = AutoTokenizer.from_pretrained(prepared.tokenizer)
    found = evaluation_set(prepared.task, "dev", tokenizer.pad_token_id, None)
    assert found.languages == ("en", "de") and found.source == "en" and found.pad_id == 0
    rows = rows_of(toy, "dev-en") + rows_of(toy, "dev-de")
    assert found.language.tolist() == [0] * EXAMPLES["dev"] + [1] * EXAMPLES["dev"]
    assert found.labels.tolist() == [int(label == "blue") for _, _, label in rows]
    expected = [
        tokenizer(a, b, truncation="longest_first", max_length=MAX_LENGTH)["input_ids"]
        for a, b, _ in rows
    ]
    assert [row.tolist() for row in found.inputs["input_ids"]] == expected


def test_trimmed_rows_stand_for_the_same_tokens(toy: Toy) -> None:
    prepared = prepare(toy.spec({}))
    plain = evaluation_set(prepared.task, "test", 0, None)
    used = np.unique(np.concatenate(plain.inputs["input_ids"]))
    kept = np.union1d(used, [0, 1, 399])
    trimmed = evaluation_set(prepared.task, "test", 0, Vocabulary(kept, 400))
    for ids, rows in zip(plain.inputs["input_ids"], trimmed.inputs["input_ids"], strict=True):
        assert kept[rows].tolist() == ids.tolist()
    for one, other in zip(
        plain.inputs["token_type_ids"], trimmed.inputs["token_type_ids"], strict=True
    ):
        assert one.tolist() == other.tolist()


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
