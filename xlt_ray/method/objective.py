"""The training targets of EAR (Ding et al., COLING 2022) over a text and its virtual view.

Every term is a value per example; their mean over the effective batch is what is optimised, so
accumulation, length buckets and data-parallel workers change nothing.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from xlt_ray.config.spec import MethodSpec
from xlt_ray.encoders.attention import AttentionRecorder
from xlt_ray.encoders.packing import TokenPacking
from xlt_ray.method.noise_view import RandomView

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


class Objective(nn.Module):
    """A classifier with the method's loss terms.

    Args:
        classifier: A sequence classification model; its encoder's attention implementation is
            set here.
        method: Which terms, and their weights.
        view: Makes the views where they are made of embeddings; None where they are texts.

    Raises:
        IndexError: If the encoder has no layer ``method.pull_layer``.
        ValueError: If the encoder has no embedding layer to observe.
    """

    def __init__(
        self, classifier: PreTrainedModel, method: MethodSpec, view: RandomView | None = None
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.method = method
        self.view = view
        self.packing = TokenPacking.on(classifier)
        self.recorder: AttentionRecorder | None = None
        self._observing = False
        self._embeddings: Tensor | None = None
        self._noise: Tensor | None = None
        if "pull" in method.terms:
            self.recorder = AttentionRecorder(classifier, method.pull_layer)
        if "push" in method.terms:
            embedding_output(classifier).register_forward_hook(self._keep_embeddings)
        if view is not None:
            classifier.get_input_embeddings().register_forward_hook(self._add_noise)

    def _keep_embeddings(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        if self._observing:
            self._embeddings = output

    def _add_noise(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output if self._noise is None else output + self._noise

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        token_type_ids: Tensor | None = None,
        words: Tensor | None = None,
        seeds: Tensor | None = None,
        perturbed: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss terms of each example.

        Args:
            input_ids: Token ids of the texts, and below them those of their views when the
                method uses any: (2 * batch, tokens), else (batch, tokens). The view of an
                embedding has the ids of its text.
            attention_mask: 1 for real tokens, likewise shaped.
            labels: Class ids of the texts (batch,).
            token_type_ids: Segment ids, for encoders that use them.
            words: Number of each token's word, -1 for padding, likewise shaped; for
                `pull_alignment: word`.
            seeds: Seed of each text's noise (batch,), for views of embeddings; on any device.
            perturbed: Whether noise falls on a token of the texts (batch, tokens), likewise.
            tokens: Positions of the real tokens in the flattened `input_ids`, rising (real
                tokens,), where the layers are to compute on them alone.

        Returns:
            The values of :data:`TERMS` that the method has, each (batch,), float32, unweighted;
            ``distance``, d_i; and ``total``, their weighted sum.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        method = self.method
        batch = labels.size(0)
        noise = None
        if self.view is not None:
            assert seeds is not None and perturbed is not None
            noise = self._draw_noise(inputs, labels, perturbed, seeds, tokens)
        with self.packing.of(tokens, attention_mask):
            outputs = self._classify(inputs, noise)
        logits = outputs.logits.float()
        cross_entropy = nn.functional.cross_entropy
        terms = {"classification": cross_entropy(logits[:batch], labels, reduction="none")}
        total = terms["classification"]
        if "robust" in method.terms:
            terms["robust"] = cross_entropy(logits[batch:], labels, reduction="none")
            total = total + method.robust_weight * terms["robust"]
        # The authors average over padding too (released code of Ding et al., 2022).
        averaged = attention_mask.float()
        if method.reduction == "padded":
            averaged = torch.ones_like(averaged)
        if "push" in method.terms:
            assert self._embeddings is not None
            means = mean_embedding(self._embeddings, averaged)
            distance = embedding_distance(means[:batch], means[batch:], method.push_distance)
            terms["push"] = push_loss(distance, method.push_margin)
            terms["distance"] = distance.detach()
            total = total + method.push_weight * terms["push"]
        self._embeddings = None
        if self.recorder is not None:
            native = self.recorder.native
            maps = outputs.attentions[method.pull_layer] if native else self.recorder.take()
            if method.pull_alignment == "word":
                assert words is not None
                maps, averaged = pool_to_words(maps.float(), words)
            terms["pull"] = pull_loss(
                maps[:batch].float(), maps[batch:].float(), averaged[:batch], averaged[batch:]
            )
            total = total + method.pull_weight * terms["pull"]
        return {**terms, "total": total}

    def _classify(self, inputs: dict[str, Tensor], noise: Tensor | None) -> Any:
        """Run the classifier, with noise on its word embeddings and the map of one layer kept."""
        self._noise, self._observing = noise, True
        try:
            if self.recorder is None:
                return self.classifier(**inputs)
            with self.recorder:
                native = True if self.recorder.native else None
                return self.classifier(**inputs, output_attentions=native)
        finally:
            self._noise, self._observing = None, False

    def _draw_noise(
        self,
        inputs: dict[str, Tensor],
        labels: Tensor,
        perturbed: Tensor,
        seeds: Tensor,
        tokens: Tensor | None,
    ) -> Tensor:
        """Noise on the word embeddings of texts and views: none on the texts'."""
        assert self.view is not None
        texts = {name: value[: len(labels)] for name, value in inputs.items()}
        if tokens is not None:
            # The views' tokens are the texts'.
            tokens = tokens[: len(tokens) // 2]

        def loss(noise: Tensor) -> Tensor:
            self._noise = noise
            try:
                with self.packing.of(tokens, texts["attention_mask"]):
                    logits = self.classifier(**texts).logits.float()
            finally:
                self._noise = None
            return nn.functional.cross_entropy(logits, labels, reduction="none")

        table = self.classifier.get_input_embeddings().weight
        assert isinstance(table, Tensor)
        hidden = table.size(1)
        noise = self.view.noise(perturbed, hidden, seeds, loss, table.device)
        return torch.cat([torch.zeros_like(noise), noise])


def embedding_output(classifier: PreTrainedModel) -> nn.Module:
    """Find the module whose output is E: the embedding layer's LayerNorm, before dropout.

    Before dropout, because its noise would be pushed apart as if it were the view's doing.
    """
    embeddings = getattr(classifier.base_model, "embeddings", None)
    if embeddings is None:
        raise ValueError(f"{type(classifier).__name__} has no embedding layer to observe")
    norms = [module for module in embeddings.modules() if isinstance(module, nn.LayerNorm)]
    return norms[-1] if norms else embeddings
