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
from safetensors.torch import load_file, load_model, save_model
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.support.core_models import padded, random_texts, tiny_classifier
from tests.support.core_toy import Run, Toy, assert_close, make_toy, train
from tests.support.tiny_encoder import DEFAULT_TEXTS
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
    kept = np.load(prepared.kept)["kept"]
    pretrained = load_classifier(specs[False].model, ("red", "blue"), 0).get_input_embeddings()
    size = pretrained.num_embeddings
    assert size == prepared.vocabulary_size
    left_out = np.setdiff1d(np.arange(size), kept)
    assert len(left_out) > size // 4  # else there is nothing to see here
    assert models[True].get_input_embeddings().num_embeddings == len(kept)
    assert models[True].config.vocab_size == len(kept)

    Vocabulary(kept, size).restore(models[True], copy.deepcopy(pretrained))
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
    vocabulary.restore(model, copy.deepcopy(before.get_input_embeddings()))
    assert model.get_input_embeddings().padding_idx == 1
    assert_close(model.state_dict(), before.state_dict(), 0)
    everything = padded(random_texts([20, 30], seed=1))
    torch.testing.assert_close(model(**everything).logits, before(**everything).logits)


def test_only_rows_that_training_can_meet_are_trained(toy: Toy) -> None:
    spec = toy.spec({"training.trim_vocabulary": True}, "xlm-roberta")
    parts = build(spec, CPU)
    vocabulary = prepare(spec).vocabulary()
    assert vocabulary is not None
    table = parts.objective.classifier.get_input_embeddings()
    assert table.trained.shape[0] == vocabulary.trained < len(vocabulary.kept)
    # Texts of all languages, and views of the source language's dev texts, need further rows.
    evaluated = np.unique(np.concatenate(parts.test.inputs["input_ids"]))
    assert evaluated.max() >= vocabulary.trained
    whole = load_classifier(prepare(spec).encoder, ("red", "blue"), 0).get_input_embeddings()
    assert torch.equal(table.weight, whole.weight)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "distilbert"])
def test_a_partly_trained_table_computes_and_learns_as_a_whole_one(
    family: str, tmp_path: Path
) -> None:
    models = [tiny_classifier(family), tiny_classifier(family)]
    vocabulary = Vocabulary(np.arange(60), 60, trained=31)
    vocabulary.train_reachable(models[1])
    inputs = padded([[7, 30, 9], [2, 30]])
    for model in models:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.0)
        for _ in range(3):
            torch.manual_seed(0)
            model.train()(**inputs).logits.square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    whole, partly = (model.get_input_embeddings() for model in models)
    torch.testing.assert_close(partly.weight, whole.weight)
    assert not torch.equal(partly.weight, tiny_classifier(family).get_input_embeddings().weight)
    with pytest.raises(IndexError):
        models[1](**padded([[31]]))
    everything = padded(random_texts([20, 30], seed=1))
    expected = models[0].eval()(**everything).logits
    torch.testing.assert_close(models[1].eval()(**everything).logits, expected)
    # A file has the table under the name that every model gives it.
    save_model(models[1], str(tmp_path / "model.safetensors"))
    stored = load_file(tmp_path / "model.safetensors")
    assert stored.keys() == models[0].state_dict().keys()
    load_model(models[1], str(tmp_path / "model.safetensors"))


def test_trained_rows_stay_those_of_their_table_on_another_device_or_type() -> None:
    model = tiny_classifier("bert")
    Vocabulary(np.arange(60), 60, trained=31).train_reachable(model)
    table = model.double().get_input_embeddings()
    assert table.trained.dtype == torch.float64
    with torch.no_grad():
        table.trained.fill_(3)
    assert (table.weight[:31] == 3).all() and not (table.weight[31:] == 3).any()


def test_a_table_whose_rows_all_train_is_stored_as_any_other(tmp_path: Path) -> None:
    model = tiny_classifier("bert")
    Vocabulary(np.arange(60), 60).train_reachable(model)
    save_model(model, str(tmp_path / "model.safetensors"))
    plain = tiny_classifier("bert")
    load_model(plain, str(tmp_path / "model.safetensors"))
    assert_close(plain.state_dict(), model.state_dict(), 0)


class Scaled(torch.nn.Embedding):
    """As of Gemma and mBART."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def test_a_table_that_scales_or_is_shared_trains_whole() -> None:
    vocabulary = Vocabulary(np.arange(60), 60, trained=31)
    scaled = tiny_classifier("bert")
    scaled.set_input_embeddings(Scaled(60, scaled.config.hidden_size))
    shared = tiny_classifier("bert")
    shared.decoder = torch.nn.Linear(1, 1)
    shared.decoder.weight = shared.get_input_embeddings().weight
    for model in (scaled, shared):
        before = model.get_input_embeddings()
        vocabulary.train_reachable(model)
        assert model.get_input_embeddings() is before and before.weight.requires_grad


def test_a_vocabulary_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = Vocabulary.of(np.array([0, 1, 7]), np.array([9, 7, 0, 3]), 10)
    assert written.kept.tolist() == [0, 1, 7, 3, 9]
    written.save(tmp_path / "kept.npz")
    read = Vocabulary.load(tmp_path / "kept.npz", 10)
    assert (read.kept.tolist(), read.size, read.trained) == ([0, 1, 7, 3, 9], 10, 3)


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


def test_without_texts_only_the_encoded_and_special_tokens_are_reachable(tokenizer: Any) -> None:
    ids = np.array(tokenizer("house garden")["input_ids"])
    found = reachable_ids(tokenizer, [ids], [], SynonymView(SYNONYMS, 1.0, 0))
    assert set(found) == set(ids) | set(tokenizer.all_special_ids)


def test_padding_keeps_its_id_wherever_it_is(toy: Toy) -> None:
    """Position ids of XLM-R's family are counted from the padding id on."""
    tokenizer = AutoTokenizer.from_pretrained(toy.encoder("bert"))
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(40)
    assert tokenizer.pad_token_id == 40
    ids = np.array(tokenizer("house")["input_ids"])
    kept = reachable_ids(tokenizer, [ids], ["house"], SynonymView({}, 1.0, 0))
    assert set(kept) >= set(range(41)) | set(ids)
    assert Vocabulary(kept, len(tokenizer)).rows(np.array([40])).tolist() == [40]


def trained(model: Any, splitter: Any, normalizer: Any, trainer: Any) -> Any:
    """A tokenizer of the tokenizers library, trained on a few texts, as transformers wraps it."""
    backend = Tokenizer(model)
    if splitter is not None:
        backend.pre_tokenizer = splitter
    if normalizer is not None:
        backend.normalizer = normalizer
    words = [word for key, others in SYNONYMS.items() for word in (key, *others)]
    lines = [" ".join(words), "a small house, in the garden", *DEFAULT_TEXTS]
    backend.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", mask_token="<mask>"
    )


SPECIAL = ["<pad>", "<unk>", "<mask>"]


def byte_level(prefix: bool) -> Any:
    """RoBERTa's kind: pieces begin with the space before them."""
    return trained(
        models.BPE(),
        pre_tokenizers.ByteLevel(add_prefix_space=prefix),
        None,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )


def gemma_like() -> Any:
    """Gemma's kind: a text is one word, in which spaces are letters; bytes for the rest."""
    return trained(
        models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True),
        pre_tokenizers.Split(" ", "merged_with_previous"),
        normalizers.Replace(" ", "▁"),
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=[*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))],
            show_progress=False,
        ),
    )


def met_by_views(tokenizer: Any, sentences: list[str]) -> set[int]:
    """Every id in views of sentences, at several radii."""
    drawn = [
        SynonymView(SYNONYMS, radius, seed).perturb(text, epoch=epoch, row=row)
        for radius, seed in ((0.3, 1), (1.0, 2), ("paper", 3))
        for epoch in range(3)
        for row, text in enumerate(sentences)
    ]
    return {token for row in tokenizer(drawn)["input_ids"] for token in row}


def assert_views_are_reachable(tokenizer: Any, sentences: list[str]) -> None:
    view = SynonymView(SYNONYMS, 1.0, 0)
    encoded = [np.array(tokenizer(text)["input_ids"][:4], dtype=np.int64) for text in sentences]
    try:
        reachable = reachable_ids(tokenizer, encoded, sentences, view)
    except ValueError as error:  # too many views to list: nothing is trimmed then
        assert "replacements" in str(error)
        return
    assert met_by_views(tokenizer, sentences) <= set(reachable.tolist())


@pytest.mark.parametrize("prefix", [False, True])
@settings(max_examples=100, deadline=None)
@given(sentences=st.lists(texts, min_size=1, max_size=4))
@example(sentences=["small house  garden \t small", "house x"])
def test_byte_level_tokens_of_every_view_are_reachable(prefix: bool, sentences: list[str]) -> None:
    assert_views_are_reachable(BYTE_LEVEL[prefix], sentences)


BYTE_LEVEL = {prefix: byte_level(prefix) for prefix in (False, True)}


def test_a_tokenizer_whose_pieces_may_cross_spaces_is_not_trimmed() -> None:
    view = SynonymView(SYNONYMS, 1.0, 0)
    with pytest.raises(ValueError, match="does not split at spaces"):
        reachable_ids(gemma_like(), [], ["small house"], view)


ADDED = ["hom", "(x", "Garden", "<new>", "ouse"]


@settings(max_examples=100, deadline=None)
@given(sentences=st.lists(texts, min_size=1, max_size=4))
@example(sentences=["small house <new>garden", "(x house Gardens"])
def test_added_tokens_of_every_view_are_reachable(extended: Any, sentences: list[str]) -> None:
    assert_views_are_reachable(extended, sentences)


@pytest.fixture(scope="module")
def extended(tokenizer: Any) -> Any:
    """The tokenizer with tokens that a user added."""
    found = copy.deepcopy(tokenizer)
    found.add_tokens(ADDED)
    return found


@pytest.mark.parametrize("added", ["red car", " red", "car\u00a0", "red▁car", "  "])
def test_an_added_token_with_a_space_trims_nothing(tokenizer: Any, added: str) -> None:
    """A view can complete it, and then a rest of a chunk is left that no chunk begins with."""
    extended = copy.deepcopy(tokenizer)
    extended.add_tokens([added])
    with pytest.raises(ValueError, match="an added token has a space"):
        reachable_ids(extended, [], ["red auto"], SynonymView({"auto": ("cars",)}, 1.0, 0))


def test_an_added_run_of_spaces_leaves_byte_level_chunks_as_they_are() -> None:
    """As ModernBERT has them."""
    extended = byte_level(prefix=False)
    extended.add_tokens(["  ", "   "])
    sentences = ["small   house  garden", "house    x"]
    found = reachable_ids(extended, [], sentences, SynonymView(SYNONYMS, 1.0, 0))
    assert met_by_views(extended, sentences) <= set(found.tolist())


def test_chunks_of_wordpiece_and_unigram_need_no_context(tokenizer: Any) -> None:
    """Their kept rows are those of chunks alone, so results stay as they were."""
    text, view = "small house", SynonymView(SYNONYMS, 1.0, 0)
    variants = [variant for chunk in text.split(" ") for variant in view.replacements(chunk)]
    alone = {
        token for row in tokenizer(variants, add_special_tokens=False)["input_ids"] for token in row
    }
    expected = alone | set(tokenizer.all_special_ids) | set(range(tokenizer.pad_token_id + 1))
    assert set(reachable_ids(tokenizer, [], [text], view).tolist()) == expected
