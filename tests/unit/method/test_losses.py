"""The loss terms on hand-worked numbers, and by loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.method.test_objective import any_seed, naive_pool
from xlt_ray.method.losses import (
    consistency_loss,
    embedding_distance,
    pool_to_words,
    pull_loss,
    push_loss,
)


@settings(max_examples=15)
@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 2**31))
def test_real_pairs_averaged_over_all_positions_are_pulled_less(
    tokens: int, padding: int, seed: int
) -> None:
    """By (n / L)^2, where both maps are 0 beyond their n tokens."""
    draw = torch.Generator().manual_seed(seed)
    maps = torch.rand(2, 1, 3, tokens, tokens, generator=draw)
    wide = torch.nn.functional.pad(maps, (0, padding, 0, padding))
    real, everywhere = torch.ones(1, tokens), torch.ones(1, tokens + padding)
    torch.testing.assert_close(
        pull_loss(wide[0], wide[1], everywhere, everywhere),
        pull_loss(maps[0], maps[1], real, real) * (tokens / (tokens + padding)) ** 2,
        rtol=1e-5,
        atol=1e-9,
    )


def test_terms_on_hand_worked_numbers() -> None:
    text, view = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 4.0]])
    distance = embedding_distance(text, view)
    assert distance.item() == pytest.approx((1 + 4) / 2)
    assert embedding_distance(text, view, "relative").item() == pytest.approx(2.5 / 2.5)
    assert push_loss(distance, None).item() == -2.5
    assert push_loss(distance, 3.0).item() == 0.5
    assert push_loss(distance, 2.0).item() == 0
    # One head; the text has two tokens, its view one: of 2 x 2 pairs three are missing from it.
    original = torch.tensor([[[[0.75, 0.25], [0.5, 0.5]]]])
    other = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    masks = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    expected = (0.25**2 + 0.25**2 + 0.5**2 + 0.5**2) / 4
    assert pull_loss(original, other, *masks).item() == pytest.approx(expected)


def test_no_gradient_flows_through_the_relative_distance_s_denominator() -> None:
    text = torch.tensor([[1.0, 2.0]], requires_grad=True)
    view = torch.tensor([[2.0, 4.0]])
    embedding_distance(text, view, "relative").sum().backward()
    # d/dx of mean((view - x)^2) is (x - view); the mean square of the text is 2.5.
    torch.testing.assert_close(text.grad, torch.tensor([[-1.0, -2.0]]) / 2.5)


@given(
    st.floats(0, 10, width=32),
    st.lists(st.floats(0, 20, width=32), min_size=2, max_size=8),
)
def test_push_falls_with_the_distance_and_is_flat_beyond_the_margin(
    margin: float, distances: list[float]
) -> None:
    distance = torch.tensor(sorted(distances), requires_grad=True)
    unbounded, bounded = push_loss(distance, None), push_loss(distance, margin)
    assert (unbounded.diff() <= 0).all() and (bounded.diff() <= 0).all()
    assert (bounded >= 0).all()
    (gradient,) = torch.autograd.grad(bounded.sum(), distance)
    (slope,) = torch.autograd.grad(unbounded.sum(), distance)
    beyond, within = distance > margin, distance < margin
    assert (bounded[beyond] == 0).all() and (gradient[beyond] == 0).all()
    # Within the margin both pull at the model alike.
    assert torch.equal(gradient[within], slope[within])
    assert (slope == -1).all()


@settings(max_examples=15)
@given(
    rows=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), min_size=1, max_size=3),
    seed=any_seed,
)
def test_maps_are_pooled_to_words_as_by_a_loop(rows: list[list[int]], seed: int) -> None:
    """Words need neither be numbered without gaps nor stand together."""
    width = max(map(len, rows)) + 1
    words = torch.tensor([row + [-1] * (width - len(row)) for row in rows])
    scores = torch.randn(len(rows), 2, width, width, generator=torch.Generator().manual_seed(seed))
    # As in an encoder, nothing attends to padding, while its own rows are not 0.
    maps = scores.masked_fill((words < 0)[:, None, None, :], -torch.inf).softmax(-1)
    pooled, present = pool_to_words(maps, words)
    count = int(words.max()) + 1
    assert pooled.shape == (len(rows), 2, count, count)
    for own, mask, map_, row in zip(pooled, present, maps, rows, strict=True):
        assert mask.tolist() == [float(word in row) for word in range(count)]
        torch.testing.assert_close(own.sum(-1), mask.expand(2, -1))
        pairs = naive_pool(map_, row)
        for pair in itertools.product(range(count), repeat=2):
            torch.testing.assert_close(own[:, *pair], pairs.get(pair, torch.zeros(2)))


def test_words_of_one_token_each_keep_the_map() -> None:
    maps = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    pooled, present = pool_to_words(maps, torch.arange(4).expand(2, -1))
    assert torch.equal(pooled, maps) and (present == 1).all()


def test_synonym_of_two_tokens_corresponds_to_the_word_of_one() -> None:
    # [CLS] film [SEP] and [CLS] mo ##vie [SEP], as three words each.
    text = torch.tensor([[[[0.2, 0.5, 0.3, 0], [0.1, 0.6, 0.3, 0], [0.4, 0.4, 0.2, 0], [0] * 4]]])
    alike = [[0.2, 0.2, 0.3, 0.3], [0.1, 0.4, 0.2, 0.3], [0.1, 0.1, 0.5, 0.3], [0.4, 0.3, 0.1, 0.2]]
    words = torch.tensor([[0, 1, 2, -1], [0, 1, 1, 2]])

    def pull(view: list[list[float]]) -> float:
        pooled, present = pool_to_words(torch.cat([text, torch.tensor([[view]])]), words)
        return pull_loss(pooled[:1], pooled[1:], present[:1], present[1:]).item()

    # Attention to the two tokens adds up to 0.5, 0.6 and 0.4, and from them it averages to
    # (0.1, 0.6, 0.3): the maps of words are equal, those of tokens are not.
    assert pull(alike) == pytest.approx(0, abs=1e-12)
    masks = torch.tensor([[1.0, 1, 1, 0]]), torch.ones(1, 4)
    assert pull_loss(text, torch.tensor([[alike]]), *masks).item() > 0.01
    # 0.1 of the first row moves from the third word to the first: 2 of 9 pairs differ by 0.1.
    assert pull([[0.3, 0.2, 0.3, 0.2], *alike[1:]]) == pytest.approx(2 * 0.1**2 / 9)


def test_consistency_on_a_worked_example() -> None:
    """p = (1/2, 1/2), q = (4/5, 1/5): (0.5 - 0.8) ln(5/8) + (0.5 - 0.2) ln(5/2)."""
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.8, 0.2]]).log()
    expected = torch.tensor([0.3 * math.log(8 / 5) + 0.3 * math.log(5 / 2)])
    torch.testing.assert_close(consistency_loss(p, q), expected)
    torch.testing.assert_close(consistency_loss(q, p), expected)
    # Logits are predictions up to a constant.
    torch.testing.assert_close(consistency_loss(p + 3, p), torch.zeros(1))
