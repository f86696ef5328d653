"""The training targets of EAR (Ding et al., COLING 2022) over a text and its virtual view.

Every term is a value per example, and the optimiser minimises their mean over the effective batch.
So accumulation, length buckets and data-parallel workers change no loss and no gradient but for
dropout, whose masks they draw in another order, like another seed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from xlt_ray.config.method import MethodSpec
from xlt_ray.encoders.attention import AttentionRecorder
from xlt_ray.encoders.dropout import use_fast_dropout
from xlt_ray.encoders.packing import TokenPacking
from xlt_ray.encoders.pooling import mean_embedding, watch_embeddings
from xlt_ray.method.losses import (
    consistency_loss,
    embedding_distance,
    pool_to_words,
    pull_loss,
    push_loss,
)
from xlt_ray.method.noise_view import RandomView


class Objective(nn.Module):
    """A classifier with the method's loss terms.

    Args:
        classifier: A sequence classification model; its encoder's attention implementation is
            set here.
        method: Which terms, and their weights.
        view: Makes views of embeddings; None if views are texts or there are none.
        label_smoothing: Share of a label's probability, in [0, 1), that all classes get.

    Raises:
        IndexError: If the encoder has no layer ``method.pull_layer``.
    """

    def __init__(
        self,
        classifier: PreTrainedModel,
        method: MethodSpec,
        view: RandomView | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.method = method
        self.view = view
        self.label_smoothing = label_smoothing
        self.packing = TokenPacking.on(classifier)
        use_fast_dropout(classifier)
        self.recorder: AttentionRecorder | None = None
        self._observing = False
        self._embeddings: Tensor | None = None
        self._noise: Tensor | None = None
        if "pull" in method.terms:
            self.recorder = AttentionRecorder(classifier, method.pull_layer)
        # Noise first: where E is the word embeddings themselves, it is part of the view's.
        if view is not None:
            classifier.get_input_embeddings().register_forward_hook(self._add_noise)
        if "push" in method.terms:
            watch_embeddings(classifier, self._keep_embeddings)

    def _keep_embeddings(self, embeddings: Tensor) -> None:
        if self._observing:
            self._embeddings = embeddings

    def _add_noise(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output if self._noise is None else output + self._noise

    # One parameter per model input: DistributedDataParallel passes them by name.
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
            input_ids: Token ids of the texts, followed by those of their views if the method has
                views: (2 * batch, tokens), else (batch, tokens). A noise view has the ids of its
                text.
            attention_mask: 1 for real tokens, same shape.
            labels: Class ids of the texts (batch,).
            token_type_ids: Segment ids, for encoders that use them.
            words: Number of each token's word, -1 for padding, same shape; for
                `pull_alignment: word`.
            seeds: Seed of each text's noise (batch,), for views of embeddings; on any device.
            perturbed: Whether a token of the texts gets noise (batch, tokens); on any device.
            tokens: Ascending positions of the real tokens in the flattened `input_ids` (real
                tokens,); None: the layers compute on padding too.

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
        terms = {"classification": self._cross_entropy(logits[:batch], labels)}
        total = terms["classification"]
        if "robust" in method.terms:
            terms["robust"] = self._cross_entropy(logits[batch:], labels)
            total = total + method.robust_weight * terms["robust"]
        if method.terms and method.consistency_weight:
            terms["consistency"] = consistency_loss(logits[:batch], logits[batch:])
            total = total + method.consistency_weight * terms["consistency"]
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
            terms["pull"] = self._pull(self.recorder.take(outputs.attentions), averaged, words)
            total = total + method.pull_weight * terms["pull"]
        return {**terms, "total": total}

    def _pull(self, maps: Tensor, averaged: Tensor, words: Tensor | None) -> Tensor:
        """Return the pull loss of each text (batch,).

        Args:
            maps: Attention maps of the texts, then of the views (2 batch, heads, tokens, tokens).
            averaged: 1 for tokens that count (2 batch, tokens).
            words: Number of each token's word (2 batch, tokens); for `pull_alignment: word`.
        """
        # Autocast would pool in bf16, and the loss squares small differences.
        with torch.autocast(maps.device.type, enabled=False):
            maps = maps.float()
            if self.method.pull_alignment == "word":
                assert words is not None
                maps, averaged = pool_to_words(maps, words)
            return pull_loss(*maps.chunk(2), *averaged.chunk(2))

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each example with its smoothed label (batch,)."""
        return nn.functional.cross_entropy(
            logits, labels, reduction="none", label_smoothing=self.label_smoothing
        )

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
        """Return the noise on the word embeddings of texts and views; the texts get none."""
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
            return self._cross_entropy(logits, labels)

        table = self.classifier.get_input_embeddings().weight
        assert isinstance(table, Tensor)
        hidden = table.size(1)
        noise = self.view.noise(perturbed, hidden, seeds, loss, table.device)
        return torch.cat([torch.zeros_like(noise), noise])
