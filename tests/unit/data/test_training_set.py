"""Training batches against the tokenizer's own output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.support.core_toy import MAX_LENGTH, SYNONYMS, Toy
from tests.support.tiny_encoder import tiny_encoder
from xlt_ray.data.preparation import prepare
from xlt_ray.data.training_set import BatchLayout, TrainingSet, word_numbers
from xlt_ray.data.vocabulary import Vocabulary
from xlt_ray.method.synonym_view import SynonymView, draw_seed

CPU = torch.device("cpu")


CHOSEN = np.array([5, 0, 31, 17])


def rows_of(toy: Toy, name: str) -> list[list[str]]:
    lines = (toy.folder / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines]


def ids_without_padding(batch: dict[str, torch.Tensor]) -> list[list[int]]:
    rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in rows]


def make_set(
    toy: Toy,
    family: Any,
    view: Any,
    max_length: int = MAX_LENGTH,
    vocabulary: Vocabulary | None = None,
    *,
    seed: int = 0,
    **layout: Any,
) -> Any:
    spec = toy.spec({"training.max_length": max_length}, family=family)
    prepared = prepare(spec)
    tokenizer = AutoTokenizer.from_pretrained(prepared.tokenizer)
    training_set = TrainingSet(
        prepared.task, tokenizer, BatchLayout(max_length, **layout), view, vocabulary, seed=seed
    )
    return training_set, tokenizer


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


def test_batch_is_as_wide_as_its_longest_input_or_as_any_may_be(toy: Toy) -> None:
    view = SynonymView(SYNONYMS, 0.5, seed=0)
    narrow, wide = (
        make_set(toy, "xlm-roberta", view, words=True, padded=padded)[0].batch(CHOSEN, 0, CPU)
        for padded in (False, True)
    )
    longest = int(narrow["attention_mask"].sum(1).max())
    assert longest < MAX_LENGTH
    real = narrow.pop("tokens")
    assert torch.equal(real, narrow["attention_mask"].flatten().nonzero().squeeze(1))
    assert "tokens" not in wide  # there, padding counts
    for name, value in narrow.items():
        if name == "labels":
            assert torch.equal(wide[name], value)
            continue
        assert value.shape == (8, longest) and wide[name].shape == (8, MAX_LENGTH)
        assert torch.equal(wide[name][:, :longest], value)
        (filling,) = wide[name][:, longest:].unique().tolist()
        assert filling == {"input_ids": 1, "words": -1}.get(name, 0)


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_views_of_embeddings_have_the_texts_ids_and_seeds_of_their_own(
    toy: Toy, family: str, trimmed: bool
) -> None:
    whole, tokenizer = make_set(toy, family, "noise", seed=11)
    training_set, kept = whole, np.arange(len(tokenizer))
    if trimmed:
        used = np.unique(np.concatenate(whole.inputs["input_ids"]))
        kept = np.union1d(used, tokenizer.all_special_ids)
        assert len(kept) < len(tokenizer)
        vocabulary = Vocabulary(kept, len(tokenizer))
        training_set, _ = make_set(toy, family, "noise", vocabulary=vocabulary, seed=11)
    batch = training_set.batch(CHOSEN, epoch=2, device=CPU)
    for name in {"input_ids", "attention_mask", "token_type_ids"} & set(batch):
        texts, views = batch[name].chunk(2)
        assert len(texts) == 4 and torch.equal(texts, views)
    assert batch["seeds"].tolist() == [draw_seed(11, 2, int(row)) for row in CHOSEN]
    special = {tokenizer.cls_token, tokenizer.sep_token, tokenizer.pad_token, tokenizer.unk_token}
    for ids, perturbed in zip(batch["input_ids"], batch["perturbed"], strict=False):
        tokens = tokenizer.convert_ids_to_tokens(kept[ids])
        assert perturbed.tolist() == [token not in special for token in tokens]
        assert perturbed.any()


def test_seeds_of_noise_depend_on_the_epoch_and_on_nothing_else_of_the_batch(toy: Toy) -> None:
    training_set, _ = make_set(toy, "bert", "noise", seed=0)

    def seeds(examples: Sequence[int], epoch: int) -> dict[int, int]:
        batch = training_set.batch(np.array(examples), epoch, CPU)
        return dict(zip(examples, batch["seeds"].tolist(), strict=True))

    first = seeds(range(30), epoch=0)
    assert seeds([7], epoch=0)[7] == first[7]
    backwards = seeds([12, 7, 3], epoch=0)
    assert all(first[i] == seed for i, seed in backwards.items())
    others = seeds(range(30), epoch=1)
    assert len({*first.values(), *others.values()}) == 60
    another, _ = make_set(toy, "bert", "noise", seed=1)
    assert not {*first.values()} & {*another.batch(np.arange(30), 0, CPU)["seeds"].tolist()}


@pytest.mark.parametrize("trimmed", [False, True])
def test_token_counts_are_those_of_the_texts(toy: Toy, trimmed: bool) -> None:
    training_set, tokenizer = make_set(toy, "bert", None)
    ids = np.concatenate(training_set.inputs["input_ids"])
    tokens = tokenizer.convert_ids_to_tokens(ids)
    expected = Counter(token for token in tokens if not token.startswith("["))
    kept = np.arange(len(tokenizer))
    if trimmed:
        kept = np.union1d(ids, tokenizer.all_special_ids)
        training_set, _ = make_set(toy, "bert", None, vocabulary=Vocabulary(kept, len(tokenizer)))
    counts = training_set.counts(len(kept))
    assert counts.shape == (len(kept),)
    names = tokenizer.convert_ids_to_tokens(kept)
    assert {name: n for name, n in zip(names, counts.tolist(), strict=True) if n} == expected


@pytest.fixture(scope="module", params=["bert", "xlm-roberta"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp(request.param)
    return AutoTokenizer.from_pretrained(tiny_encoder(folder, request.param))


SWAPS = {
    "book": ("lore", "garden"),
    "old": ("stale",),
    "stale": ("old",),
    "river": ("man",),
    "the": ("a",),
}


def numbers_of(tokenizer: Any, texts: Sequence[str], max_length: int) -> tuple[Any, list[int]]:
    """A text or a pair, encoded, and the words of its tokens."""
    encoded = tokenizer(
        *([text] for text in texts),
        truncation="longest_first",
        max_length=max_length,
        return_offsets_mapping=True,
    )
    numbers = word_numbers(texts, encoded.sequence_ids(0), encoded["offset_mapping"][0])
    assert numbers.dtype == np.int64
    return encoded, numbers.tolist()


def naive_words(tokenizer: Any, texts: Sequence[str], encoded: Any) -> list[tuple[Any, int]]:
    """(column, word) of each token, from the tokens of each word alone; (None, i): special."""
    ids = iter(encoded["input_ids"][0])
    words: list[tuple[Any, int]] = []
    columns = [
        iter([
            (number, token)
            for number, word in enumerate(text.split())
            for token in tokenizer(word, add_special_tokens=False)["input_ids"]
        ])
        for text in texts
    ]  # fmt: skip
    for column in encoded.sequence_ids(0):
        token = next(ids)
        if column is None:
            words.append((None, sum(own is None for own, _ in words)))
            continue
        number, expected = next(columns[column])
        assert token == expected
        words.append((column, number))
    return words


pieces = st.sampled_from(
    [*SWAPS, "Old", "OLD", "man", "lore", "zebra", "x", "book.", "(the)", "老人", "é"]
)


spaces = st.sampled_from([" ", "  ", "\t", " \n "])


sentences = st.tuples(
    st.sampled_from(["", " "]),
    st.lists(st.tuples(pieces, spaces), max_size=6),
    st.sampled_from(["", "river", "stale book"]),
).map(lambda parts: parts[0] + "".join(word + space for word, space in parts[1]) + parts[2])


@settings(max_examples=60)
@given(
    texts=st.lists(sentences, min_size=1, max_size=2),
    radius=st.sampled_from([0.0, 0.5, 1.0]),
    row=st.integers(0, 1000),
    max_length=st.sampled_from([9, 14, 60]),
)
def test_words_of_a_text_and_of_its_view_correspond(
    tokenizer: Any, texts: list[str], radius: float, row: int, max_length: int
) -> None:
    """Tokens have one number exactly where they are of the same word of the same text."""
    view = SynonymView(SWAPS, radius, seed=0)
    other = [view.perturb(t, epoch=0, row=row, column=i) for i, t in enumerate(texts)]
    word_of: dict[int, Any] = {}
    for side in (texts, other):
        encoded, numbers = numbers_of(tokenizer, side, max_length)
        assert numbers == sorted(numbers) and min(numbers) == 0
        words = naive_words(tokenizer, side, encoded)
        for number, word in zip(numbers, words, strict=True):
            assert word_of.setdefault(number, word) == word
    assert len(set(word_of.values())) == len(word_of)


@pytest.mark.parametrize(
    ("family", "text", "view", "numbers", "other"),
    [
        # [CLS] The old book [SEP] and [CLS] The s ##t ##a ##l ##e book [SEP]
        ("bert", "The old book", "The stale book", [0, 1, 2, 3, 4], [0, 1, *[2] * 5, 3, 4]),
        ("xlm-roberta", "The old book", "The stale book", [0, 1, 2, 3, 4], [0, 1, *[2] * 6, 3, 4]),
        # Leading, trailing and double spaces are no words; punctuation is of the word it is at.
        ("bert", "  The  old. ", "  The  old. ", [0, 1, 2, 2, 3], [0, 1, 2, 2, 3]),
        ("bert", "", "", [0, 1], [0, 1]),
        ("xlm-roberta", "", " ", [0, 1], [0, 1]),
    ],
)
def test_word_numbers_on_hand_worked_texts(
    tmp_path: Path, family: Any, text: str, view: str, numbers: list[int], other: list[int]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder(tmp_path, family))
    assert numbers_of(tokenizer, [text], 60)[1] == numbers
    assert numbers_of(tokenizer, [view], 60)[1] == other


def test_word_after_truncation_still_ends_the_text_as_in_the_view() -> None:
    """The special token after a text keeps its number however many words were cut off."""
    whole = [(0, 0), (0, 1), (2, 3), (4, 5), (0, 0)]
    assert word_numbers(["a b c"], [None, 0, 0, 0, None], whole).tolist() == [0, 1, 2, 3, 4]
    cut = [(0, 0), (0, 1), (0, 0)]
    assert word_numbers(["a b c"], [None, 0, None], cut).tolist() == [0, 1, 4]


def test_white_space_in_tokens_is_of_the_word_that_follows() -> None:
    # "▁a", "▁", "▁bc" of a tokenizer that does not split at white space first.
    offsets = [(0, 0), (0, 1), (1, 2), (2, 5), (0, 0)]
    assert word_numbers(["a  bc"], [None, 0, 0, 0, None], offsets).tolist() == [0, 1, 2, 2, 3]


@pytest.mark.parametrize("max_length", [MAX_LENGTH, 9])
@pytest.mark.parametrize("view", [SynonymView(SYNONYMS, 1.0, seed=3), "noise", None])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_batch_tells_the_words_of_texts_and_views(
    toy: Toy, family: str, view: Any, max_length: int
) -> None:
    training_set, tokenizer = make_set(toy, family, view, max_length, words=True)
    batch = training_set.batch(CHOSEN, epoch=1, device=CPU)
    rows = rows_of(toy, "train-en")
    sides = [(rows[i][:2], rows[i][:2]) for i in CHOSEN]
    if isinstance(view, SynonymView):
        for number, row in enumerate(CHOSEN):
            texts = sides[number][0]
            other = [
                view.perturb(text, epoch=1, row=int(row), column=column)
                for column, text in enumerate(texts)
            ]
            sides[number] = texts, other
    pairs = [side[0] for side in sides]
    if view is not None:
        pairs += [side[1] for side in sides]
    assert batch["words"].shape == batch["input_ids"].shape == (len(pairs), batch["words"].size(1))
    for found, mask, pair in zip(batch["words"], batch["attention_mask"], pairs, strict=True):
        assert (found[mask == 0] == -1).all()
        assert found[mask == 1].tolist() == numbers_of(tokenizer, pair, max_length)[1]


def test_words_are_told_only_where_they_are_asked_for(toy: Toy) -> None:
    training_set, _ = make_set(toy, "bert", SynonymView(SYNONYMS, 0.5, seed=0))
    assert set(training_set.batch(CHOSEN, 0, CPU)) == {
        "input_ids",
        "token_type_ids",
        "attention_mask",
        "labels",
        "tokens",
    }
