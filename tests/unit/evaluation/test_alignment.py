"""Sentence embeddings against one text at a time; alignment against naive loops and by hand."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from tests.support.core_models import FAMILIES, PAD, random_texts, tiny_classifier
from tests.support.core_workers import run_workers
from xlt_ray.distributed import Workers
from xlt_ray.encoders.attention import AttentionRecorder
from xlt_ray.errors import UserError
from xlt_ray.evaluation.alignment import (
    PLACES,
    alignment_metrics,
    principal_components,
    sentence_embeddings,
)

LAYERS = 3
TEXTS = random_texts([3, 17, 8, 8, 30, 5, 2, 12, 40, 9, 21], seed=9)
SEGMENTS = [[int(i >= len(text) // 2) for i in range(len(text))] for text in TEXTS]
MANY = 80
"""Copies of all texts that are several batches."""


def inputs_of(segments: bool = False, copies: int = 1) -> dict[str, Any]:
    inputs = {"input_ids": TEXTS, **({"token_type_ids": SEGMENTS} if segments else {})}
    return {name: copies * [np.array(row) for row in rows] for name, rows in inputs.items()}


def embed(
    model: Any, segments: bool = False, copies: int = 1, **changes: Any
) -> dict[str, np.ndarray]:
    arguments: dict[str, Any] = {"layer": 1, "pad_id": PAD, "workers": Workers()}
    return sentence_embeddings(model, inputs_of(segments, copies), **(arguments | changes))


def one_by_one(model: Any, segments: bool = False) -> list[np.ndarray]:
    """Mean hidden states of the whole classifier (layers + 1, texts, hidden)."""
    found = []
    for text, segment in zip(TEXTS, SEGMENTS, strict=True):
        inputs = {"input_ids": torch.tensor([text])}
        if segments:
            inputs["token_type_ids"] = torch.tensor([segment])
        with torch.no_grad():
            states = model(**inputs, output_hidden_states=True).hidden_states
        assert len(states) == LAYERS + 1
        found.append([state[0].mean(0).numpy() for state in states])
    return [np.array(level) for level in zip(*found, strict=True)]


@pytest.mark.parametrize("family", [*FAMILIES, "deberta-v2"])
def test_embeddings_are_those_of_one_text_at_a_time(family: str) -> None:
    model = tiny_classifier(family, layers=LAYERS)
    segments = family == "bert"
    if segments:
        with torch.no_grad():
            model.bert.embeddings.token_type_embeddings.weight[1] += 2
    states = one_by_one(model, segments)
    assert np.abs(states[2] - states[3]).max() > 0.1
    for copies in (1, MANY):
        for layer in range(LAYERS):
            found = embed(model, segments, copies, layer=layer)
            assert tuple(found) == PLACES
            assert all(value.dtype == np.float32 for value in found.values())
            first = found["embedding"]
            if family == "albert":
                # Its first hidden state is the embeddings' projection to the hidden size.
                with torch.no_grad():
                    project = model.base_model.encoder.embedding_hidden_mapping_in
                    first = project(torch.from_numpy(first)).numpy()
            expected = [np.tile(level, (copies, 1)) for level in states]
            np.testing.assert_allclose(first, expected[0], atol=1e-5)
            np.testing.assert_allclose(found["pulled"], expected[layer + 1], atol=1e-5)
            np.testing.assert_allclose(found["last"], expected[-1], atol=1e-5)


def test_dropout_is_off_and_the_mode_comes_back_also_after_a_failure() -> None:
    model = tiny_classifier("bert", layers=LAYERS)
    expected = embed(model)
    model.train()
    again = embed(model)
    assert model.training
    for place in PLACES:
        np.testing.assert_array_equal(again[place], expected[place])
    with pytest.raises(IndexError):
        sentence_embeddings(
            model,
            {"input_ids": [np.array([10**6])]},
            layer=0,
            pad_id=PAD,
            workers=Workers(),
        )
    assert model.training
    assert not model.bert.embeddings.LayerNorm._forward_hooks


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_stays_on_the_fast_path(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the layer whose attention map training records."""
    model = tiny_classifier(family, layers=LAYERS)
    recorder = AttentionRecorder(model, 1)
    calls: list[int] = []
    fast = torch.nn.functional.scaled_dot_product_attention

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return fast(*arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    embed(model)
    assert len(calls) == LAYERS
    assert recorder.probabilities is None


def test_bf16_is_near_and_comes_as_float32() -> None:
    model = tiny_classifier("bert", layers=LAYERS)
    exact, rough = embed(model), embed(model, workers=Workers(bf16=True))
    for place in PLACES:
        assert rough[place].dtype == np.float32
        np.testing.assert_allclose(rough[place], exact[place], atol=0.1)
    assert np.abs(rough["last"] - exact["last"]).max() > 1e-5


@pytest.mark.parametrize("layer", [-1, LAYERS])
def test_layer_that_the_encoder_lacks(layer: int) -> None:
    with pytest.raises(IndexError, match="3 layers"):
        embed(tiny_classifier("bert", layers=LAYERS), layer=layer)


def embed_on_worker(workers: Workers, copies: int) -> dict[str, np.ndarray]:
    model = tiny_classifier("bert", layers=LAYERS)
    return embed(model, copies=copies, workers=workers)


@pytest.mark.parametrize("copies", [1, MANY])
def test_workers_share_the_texts_and_all_learn_the_embeddings(copies: int) -> None:
    """With one batch for all, the second worker has no share."""
    expected = embed_on_worker(Workers(), copies)
    for found in run_workers(2, embed_on_worker, copies):
        for place in PLACES:
            np.testing.assert_allclose(found[place], expected[place], atol=1e-5)


def naive(
    embeddings: np.ndarray, language: np.ndarray, row: np.ndarray, source: int, target: int
) -> tuple[float, float]:
    texts = [
        {int(r): v for r, v, own in zip(row, embeddings, language, strict=True) if own == code}
        for code in (source, target)
    ]
    rows = sorted(texts[0].keys() & texts[1].keys())

    def cosine(i: int, j: int) -> float:
        a, b = texts[0][i], texts[1][j]
        return float(a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b)))

    forth = [all(cosine(i, i) >= cosine(i, j) for j in rows) for i in rows]
    back = [all(cosine(j, j) >= cosine(i, j) for i in rows) for j in rows]
    equal = [cosine(i, i) for i in rows]
    unlike = [cosine(i, j) for i in rows for j in rows if i != j]
    retrieval = (np.mean(forth) + np.mean(back)) / 2
    return float(retrieval), float(np.mean(equal) - np.mean(unlike))


def noisy_translations(
    seed: int, rows: int = 40, hidden: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three languages with a common offset and noise of its own each, in mixed order."""
    draw = np.random.default_rng(seed)
    meaning = draw.normal(size=(rows, hidden)) + 1
    noise = draw.normal(size=(3, rows, hidden)) * np.array([0.1, 0.5, 1.5])[:, None, None]
    order = draw.permutation(3 * rows)
    embeddings = (meaning + noise).reshape(3 * rows, hidden)[order].astype(np.float32)
    return embeddings, order // rows, order % rows


@pytest.mark.parametrize("block", [1, 7, 512])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_naive_loops(
    seed: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xlt_ray.evaluation.alignment._BLOCK", block)
    embeddings, language, row = noisy_translations(seed)
    # Rows that only one language has do not count.
    kept = np.random.default_rng(seed).random(len(row)) > 0.2
    embeddings, language, row = embeddings[kept], language[kept], row[kept]
    metrics = alignment_metrics(embeddings, language, row, ("de", "en", "fr"), "en")
    expected = {}
    for code, index in (("de", 0), ("fr", 2)):
        expected[f"retrieval/{code}"], expected[f"margin/{code}"] = naive(
            embeddings.astype(np.float64), language, row, 1, index
        )
    for name in ("retrieval", "margin"):
        expected[f"{name}/mean"] = (expected[f"{name}/de"] + expected[f"{name}/fr"]) / 2
    assert metrics == pytest.approx(expected, abs=1e-6)
    assert 0.1 < metrics["retrieval/fr"] < metrics["retrieval/de"] < 1


def test_metrics_on_a_hand_worked_example() -> None:
    """English at 0, 90 and 180 degrees, German at 10, 60 and 80.

    English finds German: 0 -> 10 right; 90 -> 80 wrong; 180 -> 80 right. German finds English:
    10 -> 0 right; 60 -> 90 right; 80 -> 90 wrong. So (2/3 + 2/3) / 2.
    """
    degrees = np.array([0, 90, 180, 10, 60, 80])
    angles = np.radians(degrees)
    lengths = np.array([1, 2, 0.5, 3, 1, 7])  # which do not matter
    embeddings = lengths[:, None] * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    metrics = alignment_metrics(
        embeddings, np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 0, 1, 2]), ("en", "de"), "en"
    )
    # cos 10 = 0.98481, cos 30 = 0.86603, cos 100 = -0.17365: mean 0.55906.
    # cos 60 = 0.5, cos 80 = 0.17365 twice, cos 10 = 0.98481, cos 170 = -0.98481,
    # cos 120 = -0.5: mean 0.05788.
    expected = {"retrieval": 2 / 3, "margin": 0.55906 - 0.05788}
    assert metrics == pytest.approx(
        {f"{name}/{of}": value for name, value in expected.items() for of in ("de", "mean")},
        abs=2e-5,
    )


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-25, 1e25), spread=st.booleans())
def test_rotation_and_length_change_nothing(seed: int, scale: float, spread: bool) -> None:
    embeddings, language, row = noisy_translations(seed, rows=12)
    rotation = ortho_group.rvs(embeddings.shape[1], random_state=seed)
    lengths = np.random.default_rng(seed).uniform(0.1, 10, (len(row), 1)) if spread else 1
    moved = (embeddings @ rotation * lengths * scale).astype(np.float32)
    before, after = (
        alignment_metrics(values, language, row, ("en", "de", "fr"), "en")
        for values in (embeddings, moved)
    )
    assert after == pytest.approx(before, abs=1e-5)


@given(seed=st.integers(0, 10**6))
def test_the_same_texts_are_found_and_permuted_ones_where_they_stayed(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows = 30
    source = draw.normal(size=(rows, 8))
    language, row = np.repeat([0, 1], rows), np.tile(np.arange(rows), 2)

    def metrics(target: np.ndarray) -> dict[str, float]:
        both = np.concatenate((source, target))
        return alignment_metrics(both, language, row, ("en", "de"), "en")

    assert metrics(source)["retrieval/de"] == 1
    order = draw.permutation(rows)
    assert metrics(source[order])["retrieval/de"] == (order == np.arange(rows)).mean()


def test_unrelated_embeddings_are_at_chance() -> None:
    rows = 2000
    embeddings = np.random.default_rng(0).normal(size=(2 * rows, 32))
    language, row = np.repeat([0, 1], rows), np.tile(np.arange(rows), 2)
    metrics = alignment_metrics(embeddings, language, row, ("en", "de"), "en")
    # 4000 searches with one hit in 2000: 2 hits are expected, more than 12 hardly ever seen.
    assert metrics["retrieval/de"] <= 12 / 4000
    # The mean of 2000 cosines whose deviation is 1 / sqrt(32).
    assert abs(metrics["margin/de"]) < 5 / np.sqrt(32 * rows)


@pytest.mark.parametrize("rounding", [0, 1e-7])
def test_equal_texts_are_no_errors(rounding: float) -> None:
    """Each text three times: any of the three counts, although only one is the translation."""
    draw = np.random.default_rng(3)
    source = np.repeat(draw.normal(size=(300, 16)), 3, axis=0)
    target = source + np.repeat(draw.normal(size=(300, 16)), 3, axis=0) * 0.01
    both = np.concatenate((source, target)) * (1 + rounding * draw.normal(size=(1800, 16)))
    language, row = np.repeat([0, 1], 900), np.tile(np.arange(900), 2)
    metrics = alignment_metrics(both.astype(np.float32), language, row, ("en", "de"), "en")
    assert metrics["retrieval/de"] == 1


def test_too_few_common_rows() -> None:
    language, row = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2])
    with pytest.raises(UserError, match=r"language 'de': 1 of its rows are in 'en'"):
        alignment_metrics(np.eye(4), language, row, ("en", "de"), "en")


def test_memory_is_far_from_that_of_all_pairs() -> None:
    rows, hidden = 5000, 64
    embeddings = np.random.default_rng(0).normal(size=(2 * rows, hidden)).astype(np.float32)
    language, row = np.repeat([0, 1], rows), np.tile(np.arange(rows), 2)
    tracemalloc.start()
    try:
        alignment_metrics(embeddings, language, row, ("en", "de"), "en")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * rows * rows / 3


def test_principal_components_are_the_singular_vectors_and_their_signs_are_fixed() -> None:
    draw = np.random.default_rng(2)
    embeddings = draw.normal(size=(50, 5)) * np.array([0.1, 5, 0.2, 2, 0.3]) + 7
    found = principal_components(embeddings)
    centred = embeddings - embeddings.mean(0)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    signs = [np.sign(line[np.abs(line).argmax()]) for line in right[:2]]
    np.testing.assert_allclose(found, left[:, :2] * sizes[:2] * signs, atol=1e-8)
    # The second axis is the widest, so its sign is kept.
    assert np.corrcoef(found[:, 0], embeddings[:, 1])[0, 1] > 0.99
    assert np.corrcoef(found[:, 1], embeddings[:, 3])[0, 1] > 0.99
    order = draw.permutation(50)
    np.testing.assert_allclose(principal_components(embeddings[order]), found[order], atol=1e-8)
    assert principal_components(embeddings.astype(np.float32)).shape == (50, 2)
