"""Trimming the embedding table changes no result, and no token is ever missing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.support.core_models import padded, random_texts, tiny_classifier
from tests.support.core_toy import Run, Toy, assert_close, make_toy, train
from xlt_ray.data.preparation import prepare
from xlt_ray.data.vocabulary import Vocabulary, reachable_ids
from xlt_ray.encoders.loading import load_classifier
from xlt_ray.method.synonym_view import SynonymView
from xlt_ray.training.build import build

CPU = torch.device("cpu")


FAMILIES = ("bert", "xlm-roberta")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    folder = tmp_path_factory.mktemp("toy")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLT_RAY_CACHE", str(folder / "cache"))
        yield make_toy(folder)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_with_trimmed_rows_is_training_with_all(
    toy: Toy, family: Any, tmp_path: Path
) -> None:
    changes = {"training.epochs": 2, "training.evaluations_per_epoch": 3}
    runs: dict[bool, Run] = {}
    models: dict[bool, Any] = {}
    specs = {
        trim: toy.spec(changes | {"training.trim_vocabulary": trim}, family, dropout=0.1)
        for trim in (False, True)
    }
    for trim, spec in specs.items():
        parts = build(spec, CPU)
        models[trim] = parts[0].classifier
        runs[trim] = train(spec, tmp_path / str(trim), parts=parts)
    assert len(runs[True].reports) == 7
    for one, other in zip(runs[True].reports, runs[False].reports, strict=True):
        assert_close(one, other, 1e-5)

    prepared = prepare(specs[True])
    assert prepared.kept is not None
    kept = np.load(prepared.kept)
    pretrained = load_classifier(specs[False].model, ("red", "blue"), 0).get_input_embeddings()
    size = pretrained.num_embeddings
    assert size == prepared.vocabulary_size
    left_out = np.setdiff1d(np.arange(size), kept)
    assert len(left_out) > size // 4  # else there is nothing to see here
    assert models[True].get_input_embeddings().num_embeddings == len(kept)
    assert models[True].config.vocab_size == len(kept)

    Vocabulary(kept, size).restore(models[True], pretrained.weight)
    assert models[True].config.vocab_size == size
    restored, whole = (models[trim].get_input_embeddings() for trim in (True, False))
    assert restored.padding_idx == whole.padding_idx == pretrained.padding_idx
    for table in (restored, whole):
        assert torch.equal(table.weight[left_out], pretrained.weight[left_out])
        assert (table.weight - pretrained.weight).abs().max() > 1e-3
        pad = pretrained.padding_idx
        assert torch.equal(table.weight[pad], pretrained.weight[pad])
    assert_close(models[True].state_dict(), models[False].state_dict(), 1e-5)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "distilbert"])
def test_trim_and_restore_undo_each_other_and_keep_the_outputs(family: str) -> None:
    model = tiny_classifier(family)
    before = copy.deepcopy(model)
    vocabulary = Vocabulary(np.array([0, 1, 7, 9, 30, 59]), 60)
    ids = [[7, 59, 30], [9, 7]]
    expected = model(**padded(ids)).logits
    vocabulary.trim(model)
    assert model.get_input_embeddings().padding_idx == 1
    rows = [vocabulary.rows(np.array(row)).tolist() for row in ids]
    assert rows == [[2, 5, 4], [3, 2]]
    assert vocabulary.rows(np.array([1])).tolist() == [1]  # padding keeps its id
    torch.testing.assert_close(model(**padded(rows)).logits, expected)
    vocabulary.restore(model, before.get_input_embeddings().weight)
    assert model.get_input_embeddings().padding_idx == 1
    assert_close(model.state_dict(), before.state_dict(), 0)
    everything = padded(random_texts([20, 30], seed=1))
    torch.testing.assert_close(model(**everything).logits, before(**everything).logits)


def test_id_that_was_not_kept_is_named() -> None:
    vocabulary = Vocabulary(np.array([0, 3, 5]), 10)
    with pytest.raises(KeyError, match=r"\[4, 9\]"):
        vocabulary.rows(np.array([0, 9, 4, 5]))
    assert vocabulary.rows(np.array([], dtype=np.int64)).tolist() == []


SYNONYMS = {
    "house": ("home", "building", "ὄikos"),
    "small": ("wee", "minuscule"),
    "garden": ("park",),
    "x": ("incomprehensible",),
    "incomprehensible": ("x",),
    "well-known": ("famous",),
    "mask": ("veil", "SEP"),
}


texts = st.lists(
    st.one_of(
        st.sampled_from([*SYNONYMS, "House", "GARDEN", "[MASK]", "<mask>", "[x]", "big", "книгу"]),
        st.sampled_from([" ", " ", " ", "  ", ", ", "(", "-", "\t", "\u00a0", "\u3000", "\x1c"]),
        st.text(max_size=3),
    ),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(toy: Toy, request: pytest.FixtureRequest) -> Any:
    return AutoTokenizer.from_pretrained(toy.encoder(request.param))


@settings(max_examples=150, deadline=None)
@given(
    pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=3),
    radius=st.one_of(st.floats(0, 1), st.just("paper"), st.just(1.0)),
    max_length=st.integers(8, 24),
    seed=st.integers(0, 100),
)
@example(pairs=[("incomprehensible big", "")], radius=1.0, max_length=8, seed=0)
@example(pairs=[("big\x1cgarden", "")], radius=1.0, max_length=24, seed=0)
def test_every_token_of_every_view_is_reachable(
    tokenizer: Any,
    pairs: list[tuple[str, str]],
    radius: Any,
    max_length: int,
    seed: int,
) -> None:
    def encode(a: list[str], b: list[str]) -> list[list[int]]:
        rows = tokenizer(a, b, truncation="longest_first", max_length=max_length)["input_ids"]
        return list(rows)

    view = SynonymView(SYNONYMS, radius, seed)
    first, second = map(list, zip(*pairs, strict=True))
    encoded = encode(first, second)
    try:
        reachable = reachable_ids(tokenizer, map(np.array, encoded), first + second, view)
    except ValueError:  # too many views to list: nothing is trimmed then
        return
    assert (np.diff(reachable) > 0).all()
    assert set(range(tokenizer.pad_token_id + 1)) | set(tokenizer.all_special_ids) <= set(
        reachable.tolist()
    )
    views = [
        [view.perturb(text, epoch=0, row=row, column=column) for row, text in enumerate(side)]
        for column, side in enumerate((first, second))
    ]
    met = {token for row in encoded + encode(*views) for token in row}
    assert met <= set(reachable.tolist())


def test_without_a_view_only_the_encoded_and_special_tokens_are_reachable(tokenizer: Any) -> None:
    ids = np.array(tokenizer("house garden")["input_ids"])
    found = reachable_ids(tokenizer, [ids], ["house garden big"], None)
    assert set(found) == set(ids) | set(tokenizer.all_special_ids)


def test_padding_keeps_its_id_wherever_it_is(toy: Toy) -> None:
    """Position ids of XLM-R's family are counted from the padding id on."""
    tokenizer = AutoTokenizer.from_pretrained(toy.encoder("bert"))
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(40)
    assert tokenizer.pad_token_id == 40
    ids = np.array(tokenizer("house")["input_ids"])
    kept = reachable_ids(tokenizer, [ids], ["house"], None)
    assert set(kept) >= set(range(41)) | set(ids)
    assert Vocabulary(kept, len(tokenizer)).rows(np.array([40])).tolist() == [40]
