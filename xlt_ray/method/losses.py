"""The loss terms of EAR (Ding et al., COLING 2022) and the consistency of predictions.

:class:`xlt_ray.method.objective.Objective` weights and sums them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

TERMS = ("classification", "robust", "consistency", "push", "pull")
"""Names of the loss terms."""


def consistency_loss(original: Tensor, view: Tensor) -> Tensor:
    """Return the symmetric Kullback-Leibler divergence of two predictions.

    KL(p || q) + KL(q || p) with p = f(x) and q = f(x'), as in R3F (Aghajanyan et al., ICLR 2021).
    Gradients flow through both.

    Args:
        original: Logits of the texts (batch, classes).
        view: Logits of their views (batch, classes).

    Returns:
        In nats, >= 0 (batch,).
    """
    log_p, log_q = original.log_softmax(-1), view.log_softmax(-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


def embedding_distance(
    original: Tensor, view: Tensor, scale: Literal["absolute", "relative"] = "absolute"
) -> Tensor:
    """Return the distance of a view's mean embedding from the original's.

    ||e(x') - e(x)||^2 / hidden, or relative: ||e(x') - e(x)||^2 / ||e(x)||^2.

    Args:
        original: e(x) (batch, hidden).
        view: e(x') (batch, hidden).
        scale: `absolute`: mean squared difference over the hidden size; `relative`: divided by
            the mean square of e(x). No gradient flows through the divisor, so the view moves
            away instead of the original shrinking.

    Returns:
        d_i >= 0 (batch,).
    """
    distance = (view - original).square().mean(-1)
    if scale == "relative":
        distance = distance / original.detach().square().mean(-1).clamp_min(1e-12)
    return distance


def push_loss(distance: Tensor, margin: float | None) -> Tensor:
    """Return Embedding-Push: -d_i as in the paper, or max(0, margin - d_i) with a push margin.

    Both have the same gradient until a view is `margin` away from its original. Beyond the margin
    the second has none, so the push is bounded.

    Args:
        distance: d_i (batch,).
        margin: In the unit of the distance, >= 0; None for the paper's.

    Returns:
        (batch,).
    """
    return -distance if margin is None else (margin - distance).clamp_min(0)


def pull_loss(original: Tensor, view: Tensor, original_mask: Tensor, view_mask: Tensor) -> Tensor:
    """Return Attention-Pull: the mean squared difference of two attention maps.

    The mean is over heads and pairs of tokens that are real in either text. A pair that one text
    lacks has attention 0 there.

    Args:
        original: A(x), attention probabilities (batch, heads, tokens, tokens).
        view: A(x') (batch, heads, tokens, tokens).
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
    so each row of the result still sums to 1.

    Args:
        maps: Attention probabilities (batch, heads, tokens, tokens).
        words: Number of each token's word in its text, -1 for padding (batch, tokens).

    Returns:
        The pooled maps (batch, heads, words, words), with one more word than the highest number,
        and a mask that is 1 for words with tokens (batch, words).
    """
    members = nn.functional.one_hot(words + 1)[..., 1:].to(maps.dtype)
    tokens = members.sum(1)
    pooled = torch.einsum("biw,bhij,bjv->bhwv", members, maps, members)
    return pooled / tokens.clamp_min(1)[:, None, :, None], tokens.clamp_max(1)
