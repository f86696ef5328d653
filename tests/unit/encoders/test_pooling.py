"""Mean embedding and the embedding layer's output."""

from __future__ import annotations

import pytest
import torch
from transformers import EuroBertConfig, EuroBertForSequenceClassification

from tests.support.core_models import FAMILIES, tiny_classifier
from xlt_ray.encoders.pooling import embedding_output, mean_embedding


def test_mean_is_over_the_real_tokens_only() -> None:
    embeddings = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]])
    assert mean_embedding(embeddings, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 4.0]]


def test_mean_of_half_precision_is_float32() -> None:
    embeddings = torch.full((1, 4096, 1), 1.0, dtype=torch.float16)
    mean = mean_embedding(embeddings, torch.ones(1, 4096, dtype=torch.long))
    assert mean.dtype == torch.float32 and mean.item() == 1.0


@pytest.mark.parametrize("family", FAMILIES)
def test_embedding_output_is_the_last_norm_of_the_embedding_layer(family: str) -> None:
    classifier = tiny_classifier(family)
    assert embedding_output(classifier) is classifier.base_model.embeddings.LayerNorm


def test_without_an_embedding_layer_it_is_the_word_embeddings() -> None:
    config = EuroBertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=8,
        pad_token_id=0,
    )
    classifier = EuroBertForSequenceClassification(config)
    assert embedding_output(classifier) is classifier.model.embed_tokens
