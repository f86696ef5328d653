"""Evaluation sets against the tokenizer's own output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.support.core_toy import EXAMPLES, MAX_LENGTH, SYNONYMS, Toy
from xlt_ray.data.evaluation_set import EvaluationSet, evaluation_set, with_virtual_source
from xlt_ray.data.preparation import prepare
from xlt_ray.data.vocabulary import Vocabulary
from xlt_ray.method.synonym_view import SynonymView


def rows_of(toy: Toy, name: str) -> list[list[str]]:
    lines = (toy.folder / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines]


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


def parallel(labels: np.ndarray, languages: tuple[str, ...]) -> EvaluationSet:
    """Every language has the same rows; the id of a text says which text of all it is."""
    language = np.repeat(np.arange(len(languages)), len(labels))
    rows = np.tile(np.arange(len(labels)), len(languages))
    texts = [np.array([number]) for number in range(len(rows))]
    return EvaluationSet({"input_ids": texts}, labels[rows], language, rows, languages, "en", 0)


def test_a_sample_of_the_targets_has_other_rows_in_each_language() -> None:
    whole = parallel(np.arange(6), ("en", "de", "sw", "zh"))
    found = whole.sample_targets(2)
    kept = [set(found.row[found.language == number].tolist()) for number in range(4)]
    assert kept[0] == {0, 1, 2, 3, 4, 5}
    assert [len(rows) for rows in kept[1:]] == [2, 2, 2]
    # Together they have every row.
    assert kept[1] | kept[2] | kept[3] == kept[0]
    assert [int(ids[0]) for ids in found.inputs["input_ids"]] == [
        6 * number + row for number, row in zip(found.language, found.row, strict=True)
    ]
    assert found.row.tolist() == whole.sample_targets(2).row.tolist()
    assert whole.sample_targets(9).labels.tolist() == whole.labels.tolist()


@pytest.mark.parametrize("labels", [np.repeat([0, 1, 2, 3], 40), np.tile([0, 1, 2, 3], 40)])
def test_a_sample_of_parallel_rows_has_the_classes_of_all(labels: np.ndarray) -> None:
    found = parallel(labels, ("en", "de", "sw", "zh")).sample_targets(48)
    for number in (1, 2, 3):
        counts = np.bincount(found.labels[found.language == number], minlength=4)
        assert counts.min() >= 11 and counts.max() <= 13


def test_a_sample_of_other_rows_sorted_by_class_is_drawn_from_all_of_them() -> None:
    german = np.repeat([0, 1, 2, 3], 40)
    whole = EvaluationSet(
        {"input_ids": [np.array([1])] * 164},
        np.concatenate([[0, 1, 2, 3], german]),
        np.repeat([0, 1], [4, 160]),
        np.concatenate([np.arange(4), np.arange(160)]),
        ("en", "de"),
        "en",
        0,
    )
    found = whole.sample_targets(48)
    counts = np.bincount(found.labels[found.language == 1], minlength=4)
    # 12 of each are expected; the deviation of a draw without replacement is 2.5.
    assert counts.min() >= 4 and counts.max() <= 20


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 30))
def test_no_label_of_a_target_decides_what_is_drawn(labels: list[int], rows: int) -> None:
    whole = parallel(np.array(labels), ("en", "de", "sw"))
    other = replace(whole, labels=np.where(whole.language == 0, whole.labels, 0))
    one, two = (texts.sample_targets(rows) for texts in (whole, other))
    assert one.row.tolist() == two.row.tolist()


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("radius", [0.0, 0.7])
def test_virtual_source_is_the_source_s_dev_set_in_synonyms(
    toy: Toy, family: Any, radius: float
) -> None:
    prepared = prepare(toy.spec({}, family=family))
    tokenizer = AutoTokenizer.from_pretrained(prepared.tokenizer)
    dev = evaluation_set(prepared.task, "dev", tokenizer.pad_token_id, None)
    view = SynonymView(SYNONYMS, radius, seed=4)
    found = with_virtual_source(dev, prepared.task, tokenizer, MAX_LENGTH, view, None)
    count, added = len(dev.labels), EXAMPLES["dev"]
    assert found.languages == ("en", "de", "en_virtual")
    assert found.source == "en" and found.pad_id == dev.pad_id
    assert found.language.tolist() == [*dev.language, *[2] * added]
    english = dev.labels[dev.language == 0].tolist()
    assert found.labels.tolist() == [*dev.labels, *english]
    assert set(found.inputs) == set(dev.inputs)
    rows = rows_of(toy, "dev-en")
    texts = [
        [view.perturb(row[column], epoch=0, row=i, column=column) for i, row in enumerate(rows)]
        for column in (0, 1)
    ]
    assert (texts == [[row[column] for row in rows] for column in (0, 1)]) == (radius == 0)
    expected = tokenizer(*texts, truncation="longest_first", max_length=MAX_LENGTH)
    for name, inputs in found.inputs.items():
        assert len(inputs) == count + added
        assert [row.tolist() for row in inputs[:count]] == [r.tolist() for r in dev.inputs[name]]
        assert [row.tolist() for row in inputs[count:]] == expected[name]
        if radius == 0:
            source = [
                r.tolist() for r, i in zip(dev.inputs[name], dev.language, strict=True) if i == 0
            ]
            assert [row.tolist() for row in inputs[count:]] == source


def test_virtual_source_has_rows_of_the_trimmed_table(toy: Toy) -> None:
    prepared = prepare(toy.spec({}))
    tokenizer = AutoTokenizer.from_pretrained(prepared.tokenizer)
    view = SynonymView(SYNONYMS, 0.7, seed=4)
    plain = evaluation_set(prepared.task, "dev", 0, None)
    plain = with_virtual_source(plain, prepared.task, tokenizer, MAX_LENGTH, view, None)
    kept = np.unique(np.concatenate([[0, 1, 399], *plain.inputs["input_ids"]]))
    vocabulary = Vocabulary(kept, 400)
    trimmed = evaluation_set(prepared.task, "dev", 0, vocabulary)
    trimmed = with_virtual_source(trimmed, prepared.task, tokenizer, MAX_LENGTH, view, vocabulary)
    for ids, rows in zip(plain.inputs["input_ids"], trimmed.inputs["input_ids"], strict=True):
        assert kept[rows].tolist() == ids.tolist()
