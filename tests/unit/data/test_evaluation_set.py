"""Evaluation sets against the tokenizer's own output."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
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


def test_a_sample_of_the_targets_has_other_rows_in_each_language() -> None:
    language = np.repeat([0, 1, 2, 3], 5)
    rows = np.tile(np.arange(5), 4)
    texts = [np.array([number]) for number in range(20)]
    languages = ("en", "de", "sw", "zh")
    whole = EvaluationSet({"input_ids": texts}, rows, language, rows, languages, "en", 0)
    found = whole.sample_targets(2)
    kept = {code: found.row[found.language == i].tolist() for i, code in enumerate(languages)}
    # The rows after those of the language before; after row 4 comes row 0.
    assert kept == {"en": [0, 1, 2, 3, 4], "de": [2, 3], "sw": [0, 4], "zh": [1, 2]}
    assert [int(ids[0]) for ids in found.inputs["input_ids"]] == [
        5 * number + row for number, row in zip(found.language, found.row, strict=True)
    ]
    assert whole.sample_targets(9).labels.tolist() == rows.tolist()


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
