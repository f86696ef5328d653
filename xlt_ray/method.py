"""The training targets of EAR (Ding et al., COLING 2022) over a text and its virtual view.

Every term is a value per example; their mean over the effective batch is what is optimised, so
accumulation, length buckets and data-parallel workers change nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from xlt_ray.attention import AttentionRecorder
from xlt_ray.spec import MethodSpec

TERMS = ("classification", "robust", "push", "pull")


def mean_embedding(embeddings: Tensor, mask: Tensor) -> Tensor:
    """Average token embeddings over the real tokens, e(.) in the paper.

    Args:
        embeddings: Token embeddings (batch, tokens, hidden).
        mask: 1 for real tokens, 0 for padding (batch, tokens).

    Returns:
        Sentence embeddings, float32 (batch, hidden).
    """
    weights = mask.unsqueeze(-1).float()
    return (embeddings.float() * weights).sum(1) / weights.sum(1)


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


class Objective(nn.Module):
    """A classifier with the method's loss terms.

    Args:
        classifier: A sequence classification model; its encoder's attention implementation is
            set here.
        method: Which terms, and their weights.

    Raises:
        IndexError: If the encoder has no layer ``method.pull_layer``.
        ValueError: If the encoder has no embedding layer to observe.
    """

    def __init__(self, classifier: PreTrainedModel, method: MethodSpec) -> None:
        super().__init__()
        self.classifier = classifier
        self.method = method
        self.recorder: AttentionRecorder | None = None
        self._embeddings: Tensor | None = None
        if method.name == "ear":
            self.recorder = AttentionRecorder(classifier, method.pull_layer)
            _embedding_output(classifier).register_forward_hook(self._keep_embeddings)

    def _keep_embeddings(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        if self.recorder is not None and self.recorder.enabled:
            self._embeddings = output

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss terms of each example.

        Args:
            input_ids: Token ids of the texts, and below them those of their views when the
                method uses any: (2 * batch, tokens), else (batch, tokens).
            attention_mask: 1 for real tokens, likewise shaped.
            labels: Class ids of the texts (batch,).
            token_type_ids: Segment ids, for encoders that use them.

        Returns:
            The values of :data:`TERMS` that the method has, each (batch,), float32, unweighted;
            ``distance``, d_i; and ``total``, their weighted sum.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        batch = labels.size(0)
        cross_entropy = nn.functional.cross_entropy
        if self.recorder is None:
            logits = self.classifier(**inputs).logits.float()
            loss = cross_entropy(logits, labels, reduction="none")
            return {"classification": loss, "total": loss}

        method = self.method
        native = self.recorder.native
        with self.recorder:
            outputs = self.classifier(**inputs, output_attentions=True if native else None)
        logits = outputs.logits.float()
        classification = cross_entropy(logits[:batch], labels, reduction="none")
        robust = cross_entropy(logits[batch:], labels, reduction="none")
        assert self._embeddings is not None
        embeddings = mean_embedding(self._embeddings, attention_mask)
        self._embeddings = None
        distance = embedding_distance(embeddings[:batch], embeddings[batch:], method.push_distance)
        push = push_loss(distance, method.push_margin)
        maps = outputs.attentions[method.pull_layer] if native else self.recorder.take()
        mask = attention_mask.float()
        pull = pull_loss(maps[:batch].float(), maps[batch:].float(), mask[:batch], mask[batch:])
        total = classification + robust + method.push_weight * push + method.pull_weight * pull
        return {
            "classification": classification,
            "robust": robust,
            "push": push,
            "pull": pull,
            "distance": distance.detach(),
            "total": total,
        }


def _embedding_output(classifier: PreTrainedModel) -> nn.Module:
    """Find the module whose output is E: the embedding layer's LayerNorm, before dropout.

    Before dropout, because its noise would be pushed apart as if it were the view's doing.
    """
    embeddings = getattr(classifier.base_model, "embeddings", None)
    if embeddings is None:
        raise ValueError(f"{type(classifier).__name__} has no embedding layer to observe")
    norms = [module for module in embeddings.modules() if isinstance(module, nn.LayerNorm)]
    return norms[-1] if norms else embeddings
