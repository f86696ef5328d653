"""Cross pairs against the tokenizer itself; the matrix against one pair at a time."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from tests.support.core_models import PAD, random_texts, tiny_classifier
from tests.support.core_workers import run_workers
from tests.support.tiny_encoder import DEFAULT_TEXTS, Family, tiny_encoder
from xlt_ray.data.evaluation_set import EvaluationSet
from xlt_ray.data.vocabulary import Vocabulary
from xlt_ray.distributed import Workers
from xlt_ray.encoders.packing import TokenPacking
from xlt_ray.errors import UserError
from xlt_ray.evaluation.accuracy import accuracy_metrics
from xlt_ray.evaluation.language_pairs import (
    accuracy_matrix,
    cross_pairs,
    generalized_metrics,
    separator_ids,
    write_table,
)
from xlt_ray.evaluation.predict import predict

FAMILIES = get_args(Family)
WORDS = {
    "en": ["The", "old", "man", "reads", "a", "book", "in", "the", "quiet", "garden"],
    "de": ["Der", "alte", "Mann", "liest", "im", "stillen", "Garten", "ein", "Buch"],
    "es": ["El", "anciano", "lee", "un", "libro", "en", "el", "jardín", "tranquilo"],
}
LANGUAGES = tuple(WORDS)
Pairs = Mapping[str, Sequence[tuple[str, str]]]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreTrainedTokenizerBase]:
    folder = tmp_path_factory.mktemp("encoders")
    found: dict[str, PreTrainedTokenizerBase] = {
        family: AutoTokenizer.from_pretrained(tiny_encoder(folder / family, family))
        for family in FAMILIES
    }
    # The tests count words and mean tokens.
    for tokenizer in found.values():
        for word in (word for words in WORDS.values() for word in words):
            assert len(tokenizer.tokenize(word)) == 1
    return found


def text(language: str, words: int, start: int = 0) -> str:
    vocabulary = WORDS[language]
    return " ".join(vocabulary[(start + i) % len(vocabulary)] for i in range(words))


def encode(
    tokenizer: PreTrainedTokenizerBase, first: str, second: str, max_length: int
) -> dict[str, list[int]]:
    # In lists, as a data set is: outside of them an empty second text is taken for none.
    encoded = tokenizer(
        [first],
        [second],
        truncation="longest_first",
        max_length=max_length,
        return_attention_mask=False,
    )
    return {name: rows[0] for name, rows in encoded.items()}


def stored(
    tokenizer: PreTrainedTokenizerBase, pairs: Pairs, max_length: int
) -> tuple[dict[str, list[np.ndarray]], np.ndarray, np.ndarray]:
    """Inputs, languages and rows of a split, language by language as they are stored."""
    rows = [
        (encode(tokenizer, *pair, max_length), index, number)
        for index, code in enumerate(pairs)
        for number, pair in enumerate(pairs[code])
    ]
    inputs = {name: [np.array(ids[name]) for ids, _, _ in rows] for name in rows[0][0]}
    return inputs, np.array([row[1] for row in rows]), np.array([row[2] for row in rows])


def check_against_tokenizer(
    tokenizer: PreTrainedTokenizerBase, pairs: Pairs, texts: Pairs, max_length: int
) -> int:
    """Compare all cross pairs of `pairs` with the tokenizer's of `texts`; return how many are cut.

    `texts` are what the stored pairs still hold of the texts of `pairs`.
    """
    inputs, language, row = stored(tokenizer, pairs, max_length)
    assert ("token_type_ids" in inputs) == (tokenizer.sep_token == "[SEP]")
    languages = tuple(pairs)
    ids = separator_ids(tokenizer)
    crossed = cross_pairs(inputs, language, row, languages, ids, max_length)
    rows = len(texts[languages[0]])
    built = crossed.inputs(np.arange(len(languages) ** 2 * rows))
    number = cut = 0
    for premise in languages:
        for hypothesis in languages:
            for i in range(rows):
                first, second = texts[premise][i][0], texts[hypothesis][i][1]
                expected = encode(tokenizer, first, second, max_length)
                assert {name: built[name][number].tolist() for name in built} == expected
                assert crossed.lengths[number] == len(expected["input_ids"])
                whole = encode(tokenizer, first, second, 10**6)["input_ids"]
                cut += len(whole) > max_length
                number += 1
    return cut


@pytest.mark.parametrize("family", FAMILIES)
def test_cross_pairs_are_what_the_tokenizer_makes_of_the_two_texts(
    tokenizers: dict[str, PreTrainedTokenizerBase], family: str
) -> None:
    # Unknown letters, punctuation and words of many tokens.
    pairs = {
        code: [(DEFAULT_TEXTS[start + 2 * i], DEFAULT_TEXTS[start + 2 * i + 1]) for i in range(2)]
        for start, code in ((0, "en"), (3, "de"), (7, "xx"))
    }
    assert check_against_tokenizer(tokenizers[family], pairs, pairs, max_length=128) == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("max_length", [16, 17, 18, 19])
def test_cross_pairs_that_are_too_long_are_cut_as_the_tokenizer_cuts(
    tokenizers: dict[str, PreTrainedTokenizerBase], family: str, max_length: int
) -> None:
    """Each language's own pairs fit; pairs of two languages need not."""
    pairs = {
        "en": [(text("en", 10), text("en", 2)), (text("en", 6), text("en", 6))],
        "de": [(text("de", 3), text("de", 9)), (text("de", 1), text("de", 11))],
        "es": [(text("es", 9), text("es", 3)), (text("es", 7), text("es", 4))],
    }
    assert check_against_tokenizer(tokenizers[family], pairs, pairs, max_length) > 0


@given(data=st.data(), family=st.sampled_from(FAMILIES), max_length=st.integers(6, 24))
def test_texts_that_were_cut_within_their_own_pair_stay_cut(
    tokenizers: dict[str, PreTrainedTokenizerBase],
    data: st.DataObject,
    family: str,
    max_length: int,
) -> None:
    tokenizer = tokenizers[family]
    pairs, left = {}, {}
    for code in ("en", "de"):
        counts = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)), label=code)
        own = text(code, counts[0]), text(code, counts[1], start=3)
        encoded = tokenizer(*own, truncation="longest_first", max_length=max_length)
        kept = [encoded.sequence_ids().count(number) for number in (0, 1)]
        pairs[code] = [own]
        left[code] = [(text(code, kept[0]), text(code, kept[1], start=3))]
    check_against_tokenizer(tokenizer, pairs, left, max_length)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_of_no_tokens(tokenizers: dict[str, PreTrainedTokenizerBase], family: str) -> None:
    pairs = {
        "en": [("", text("en", 3)), (text("en", 2), ""), (text("en", 2), text("en", 4))],
        "de": [(text("de", 4), ""), ("", ""), (text("de", 1), text("de", 1))],
    }
    check_against_tokenizer(tokenizers[family], pairs, pairs, max_length=128)


@pytest.mark.parametrize("family", FAMILIES)
def test_text_with_a_separator_of_its_own_leaves_other_rows_alone(
    tokenizers: dict[str, PreTrainedTokenizerBase], family: str
) -> None:
    tokenizer = tokenizers[family]
    odd = f"{text('en', 2)} {tokenizer.sep_token}"
    pairs = {
        "en": [(odd, text("en", 3)), (text("en", 1), text("en", 2)), (text("en", 3), odd)],
        "de": [(text("de", 4), text("de", 1)), (text("de", 2), text("de", 3)), (odd, odd)],
    }
    inputs, language, row = stored(tokenizer, pairs, 128)
    crossed = cross_pairs(inputs, language, row, ("en", "de"), separator_ids(tokenizer), 128)
    built = crossed.inputs(np.arange(12))["input_ids"]
    for i, premise in enumerate(pairs):
        for j, hypothesis in enumerate(pairs):
            expected = encode(tokenizer, pairs[premise][1][0], pairs[hypothesis][1][1], 128)
            assert built[(i * 2 + j) * 3 + 1].tolist() == expected["input_ids"]
    for i in range(2):
        for number in range(3):
            own = built[(i * 2 + i) * 3 + number].tolist()
            assert own == inputs["input_ids"][i * 3 + number].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_separators_alone_suffice_and_a_trimmed_vocabulary_has_its_own(
    tokenizers: dict[str, PreTrainedTokenizerBase], family: str
) -> None:
    tokenizer = tokenizers[family]
    pairs = {
        "en": [(text("en", 10), text("en", 2))],
        "de": [(text("de", 3), text("de", 9))],
    }
    inputs, language, row = stored(tokenizer, pairs, 16)
    every = np.arange(4)
    expected = cross_pairs(
        inputs, language, row, ("en", "de"), separator_ids(tokenizer), 16
    ).inputs(every)

    only = cross_pairs(inputs, language, row, ("en", "de"), {tokenizer.sep_token_id}, 16)
    for name, rows in only.inputs(every).items():
        assert [ids.tolist() for ids in rows] == [ids.tolist() for ids in expected[name]]

    seen = np.concatenate([*inputs["input_ids"], np.array(tokenizer.all_special_ids)])
    vocabulary = Vocabulary(np.unique(seen), len(tokenizer))
    trimmed = inputs | {"input_ids": [vocabulary.rows(ids) for ids in inputs["input_ids"]]}
    assert trimmed["input_ids"][0].tolist() != inputs["input_ids"][0].tolist()
    ids = separator_ids(tokenizer, vocabulary)
    found = cross_pairs(trimmed, language, row, ("en", "de"), ids, 16).inputs(every)
    back = [vocabulary.kept[rows].tolist() for rows in found["input_ids"]]
    assert back == [ids.tolist() for ids in expected["input_ids"]]


@pytest.mark.parametrize("family", FAMILIES)
def test_single_texts_are_refused(
    tokenizers: dict[str, PreTrainedTokenizerBase], family: str
) -> None:
    tokenizer = tokenizers[family]
    singles = [np.array(tokenizer(text(code, 4))["input_ids"]) for code in LANGUAGES]
    # A text can hold a separator of its own.
    odd = np.array(tokenizer(f"{text('en', 2)} {tokenizer.sep_token} {text('en', 2)}")["input_ids"])
    for ids in (singles, [*singles[:-1], odd]):
        with pytest.raises(UserError, match="needs pairs of texts"):
            cross_pairs(
                {"input_ids": ids},
                np.arange(3),
                np.zeros(3, int),
                LANGUAGES,
                separator_ids(tokenizer),
                32,
            )


MANY = 40
"""Copies of a split that are several batches."""
COLUMNS = [field.name for field in fields(EvaluationSet)]


class Split:
    """Random stored pairs of three languages, in mixed order, and a classifier for them."""

    def __init__(self, family: str, rows: int = 9) -> None:
        self.family, self.count = family, rows
        draw = np.random.default_rng(5)
        lengths = draw.integers(1, 14, 2 * 3 * rows).tolist()
        texts = random_texts(lengths, seed=7)
        self.first = [[texts[r * 6 + i] for r in range(rows)] for i in range(3)]
        self.second = [[texts[r * 6 + 3 + i] for r in range(rows)] for i in range(3)]
        gold = draw.integers(0, 3, rows)
        self.separators = {0, 4} if family == "bert" else {0, 2}
        order = draw.permutation(3 * rows)
        self.language, self.row = order // rows, order % rows
        self.labels = gold[self.row]
        self.gold = gold
        joined = [self.join(i, i, r) for i, r in zip(self.language, self.row, strict=True)]
        self.inputs = {name: [np.array(pair[name]) for pair in joined] for name in joined[0]}

    def join(self, premise: int, hypothesis: int, row: int) -> dict[str, list[int]]:
        first, second = self.first[premise][row], self.second[hypothesis][row]
        if self.family == "bert":
            head, tail = [0, *first, 4], [*second, 4]
            segments = [0] * len(head) + [1] * len(tail)
            return {"input_ids": head + tail, "token_type_ids": segments}
        return {"input_ids": [0, *first, 2, 2, *second, 2]}

    def model(self) -> Any:
        model = tiny_classifier(self.family)
        bert = self.family == "bert"
        with torch.no_grad():
            if bert:
                model.bert.embeddings.token_type_embeddings.weight[1] += 2
            # Else nearly all pairs would be of one class.
            logits = [
                model(
                    **{name: torch.from_numpy(rows[i])[None] for name, rows in self.inputs.items()}
                )
                for i in range(len(self.row))
            ]
            head = model.classifier if bert else model.classifier.out_proj
            head.bias -= torch.cat([output.logits for output in logits]).mean(0)
        return model

    def matrix(self, copies: int = 1, **changes: Any) -> np.ndarray:
        columns = {name: changes.pop(name) for name in set(changes) & set(COLUMNS)}
        data = replace(self.data(copies), **columns)
        if rows := changes.pop("rows", None):
            data = data.first_rows(rows)
        arguments: dict[str, Any] = {
            "classifier": self.model(),
            "data": data,
            "separator_ids": self.separators,
            "workers": Workers(),
            "max_length": 64,
        }
        return accuracy_matrix(**(arguments | changes))

    def data(self, copies: int = 1) -> EvaluationSet:
        """The stored pairs, or copies of them as further rows, which change no accuracy."""
        return EvaluationSet(
            {name: copies * rows for name, rows in self.inputs.items()},
            np.tile(self.labels, copies),
            np.tile(self.language, copies),
            np.concatenate([self.row + copy * self.count for copy in range(copies)]),
            LANGUAGES,
            LANGUAGES[0],
            PAD,
        )

    def naive(self, rows: int) -> list[list[float]]:
        """The matrix by a loop over languages and rows."""
        model = self.model()

        @torch.no_grad()
        def correct(premise: int, hypothesis: int, row: int) -> bool:
            inputs = self.join(premise, hypothesis, row)
            logits = model(**{name: torch.tensor([ids]) for name, ids in inputs.items()}).logits
            return bool(logits.argmax() == self.gold[row])

        return [
            [sum(correct(i, j, r) for r in range(rows)) / rows for j in range(3)] for i in range(3)
        ]


@pytest.fixture(scope="module", params=["bert", "xlm-roberta"])
def split(request: pytest.FixtureRequest) -> Split:
    return Split(request.param)


@pytest.mark.parametrize("rows", [None, 5])
def test_matrix_is_that_of_one_pair_at_a_time(
    split: Split, rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = split.naive(rows or split.count)
    assert len({value for line in expected for value in line}) > 2
    assert expected != np.transpose(expected).tolist()
    np.testing.assert_allclose(split.matrix(rows=rows), expected)
    monkeypatch.setattr("xlt_ray.evaluation.language_pairs._CHUNK", 7)
    np.testing.assert_allclose(split.matrix(rows=rows), expected)


def test_matrix_of_several_batches_is_that_of_one_pair_at_a_time(split: Split) -> None:
    np.testing.assert_allclose(split.matrix(copies=MANY), split.naive(split.count))


def test_matrix_does_not_depend_on_the_order_of_the_stored_pairs(split: Split) -> None:
    order = np.random.default_rng(1).permutation(len(split.row))
    shuffled = split.matrix(
        inputs={name: [rows[i] for i in order] for name, rows in split.inputs.items()},
        labels=split.labels[order],
        language=split.language[order],
        row=split.row[order],
    )
    np.testing.assert_array_equal(shuffled, split.matrix())


@pytest.mark.parametrize("bf16", [False, True])
def test_diagonal_is_ordinary_evaluation(split: Split, bf16: bool) -> None:
    """Of the same batches, which decide the rounding."""
    workers = Workers(bf16=bf16)
    model = split.model()
    seen: list[list[list[int]]] = []
    TokenPacking.on(model)  # its trial passes are no batches
    model.register_forward_pre_hook(
        lambda module, arguments, inputs: seen.append(inputs["input_ids"].tolist()),
        with_kwargs=True,
    )
    data = split.data(MANY)
    predictions = predict(model, data.inputs, pad_id=PAD, workers=workers)
    ordinary = accuracy_metrics("test", predictions, data)
    batches, seen[:] = list(seen), []
    matrix = split.matrix(MANY, classifier=model, workers=workers)
    assert matrix.diagonal().tolist() == [ordinary[f"test/accuracy/{code}"] for code in LANGUAGES]
    assert len(batches) > 2 and seen[: len(batches)] == batches


def test_a_model_in_training_stays_so(split: Split) -> None:
    model = split.model().train()
    split.matrix(classifier=model)
    assert model.training


def matrix_on_worker(workers: Workers) -> tuple[list[list[float]], int]:
    """The matrix, and how many batches this worker classified."""
    split = Split("bert")
    model = split.model()
    calls: list[int] = []
    TokenPacking.on(model)  # its trial passes are no batches
    model.register_forward_hook(lambda *_: calls.append(1))
    matrix = split.matrix(MANY, classifier=model, workers=workers)
    return matrix.tolist(), len(calls)


def test_workers_share_the_pairs_and_all_learn_the_matrix() -> None:
    alone, batches = matrix_on_worker(Workers())
    results = run_workers(2, matrix_on_worker)
    assert [matrix for matrix, _ in results] == [alone] * 2
    shares = [share for _, share in results]
    assert sum(shares) == batches and max(shares) - min(shares) <= 2


def test_data_that_is_not_parallel_is_refused(split: Split) -> None:
    other = split.labels.copy()
    other[0] = (other[0] + 1) % 3
    with pytest.raises(UserError, match="same labels"):
        split.matrix(labels=other)
    rows = split.row.copy()
    rows[0] = split.count
    with pytest.raises(UserError, match="same rows"):
        split.matrix(row=rows)
    with pytest.raises(UserError, match="same rows"):
        cross_pairs(split.inputs, split.language, rows, LANGUAGES, split.separators, 64)
    twice = np.where(split.row == 1, 0, split.row)
    with pytest.raises(UserError, match="same rows"):
        cross_pairs(split.inputs, split.language, twice, LANGUAGES, split.separators, 64)


MATRIX = np.array([[0.9, 0.6, 0.5], [0.7, 0.8, 0.4], [0.3, 0.2, 0.1]])


def test_metrics_on_hand_worked_numbers() -> None:
    assert generalized_metrics(MATRIX, ("en", "de", "zh"), "en") == pytest.approx(
        {
            "generalized/mean": 0.5,  # 4.5 / 9
            "generalized/diagonal_mean": 0.6,  # 1.8 / 3
            "generalized/off_diagonal_mean": 0.45,  # 2.7 / 6
            "generalized/source_premise_mean": 0.55,  # (0.6 + 0.5) / 2
            "generalized/source_hypothesis_mean": 0.5,  # (0.7 + 0.3) / 2
        }
    )
    other = generalized_metrics(MATRIX, ("de", "en", "zh"), "en")
    assert other["generalized/source_premise_mean"] == pytest.approx(0.55)  # (0.7 + 0.4) / 2
    assert other["generalized/source_hypothesis_mean"] == pytest.approx(0.4)  # (0.6 + 0.2) / 2


def test_table_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "generalized.csv"
    write_table(MATRIX, ("en", "de", "zh"), path)
    frame = pd.read_csv(path, index_col="premise")
    assert frame.loc["de", "zh"] == 0.4 and frame.loc["zh", "de"] == 0.2
    np.testing.assert_array_equal(frame.to_numpy(), MATRIX)
    with path.open(newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == ["premise", "en", "de", "zh"]
