"""The loss terms of EAR as functions of tensors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

TERMS = ("classification", "robust", "push", "pull")


def embedding_distance(
    original: Tensor, view: Tensor, scale: Literal["absolute", "relative"] = "absolute"
) -> Tensor:
    """Distance of a view's mean embedding from the original's.

    Args:
        original: e(x) (batch, hidden).
        view: e(x') (batch, hidden).
        scale: `absolute`: mean squared difference over the hidden size; `relative`: divided by
            the mean square of e(x), through which no gradient flows, so that a view is moved
            away rather than the original shrunk.

    Returns:
        d_i >= 0 (batch,).
    """
    distance = (view - original).square().mean(-1)
    if scale == "relative":
        distance = distance / original.detach().square().mean(-1).clamp_min(1e-12)
    return distance


def push_loss(distance: Tensor, margin: float | None) -> Tensor:
    """Embedding-Push: -d_i (the paper's), or max(0, margin - d_i) with a push margin.

    Both have the same gradient until a view is `margin` away from its original; beyond it the
    second has none, so the push is bounded.

    Args:
        distance: d_i (batch,).
        margin: In the unit of the distance, >= 0; None for the paper's.

    Returns:
        (batch,).
    """
    return -distance if margin is None else (margin - distance).clamp_min(0)


def pull_loss(original: Tensor, view: Tensor, original_mask: Tensor, view_mask: Tensor) -> Tensor:
    """Attention-Pull: mean squared difference of two attention maps over heads and token pairs.

    A token pair counts where both positions hold a real token in either view; what a view lacks
    counts as attention 0.

    Args:
        original: A(x), attention probabilities (batch, heads, tokens, tokens).
        view: A(x'), likewise.
        original_mask: 1 for x's real tokens (batch, tokens).
        view_mask: 1 for the real tokens of x' (batch, tokens).

    Returns:
        (batch,).
    """
    real_original = original_mask[:, None, :, None] * original_mask[:, None, None, :]
    real_view = view_mask[:, None, :, None] * view_mask[:, None, None, :]
    difference = original * real_original - view * real_view
    tokens = torch.maximum(original_mask, view_mask).sum(-1)
    return difference.square().sum((1, 2, 3)) / (original.size(1) * tokens.square())


def pool_to_words(maps: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Pool attention maps from tokens to words.

    Attention from a word is the mean over its tokens, attention to a word the sum over its tokens,
    so that a row of the result still sums to 1.

    Args:
        maps: Attention probabilities (batch, heads, tokens, tokens).
        words: Number of each token's word in its text, -1 for padding (batch, tokens).

    Returns:
        The pooled maps (batch, heads, words, words), as many words as the highest number tells,
        and 1 where a word has tokens (batch, words).
    """
    members = nn.functional.one_hot(words + 1)[..., 1:].to(maps.dtype)
    tokens = members.sum(1)
    pooled = torch.einsum("biw,bhij,bjv->bhwv", members, maps, members)
    return pooled / tokens.clamp_min(1)[:, None, :, None], tokens.clamp_max(1)
