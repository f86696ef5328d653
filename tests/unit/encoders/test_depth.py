"""Depths of parameters, on encoders whose parts are named and ordered differently."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    GteConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    XLMRobertaConfig,
)

from xlt_ray.encoders.depth import parameter_depths

SIZE = {
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}
DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p"], "norm_rel_ebd": "layer_norm"}
CASES = [
    (
        BertConfig(**SIZE),
        {
            "bert.embeddings.word_embeddings.weight": 0,
            "bert.embeddings.LayerNorm.bias": 0,
            "bert.encoder.layer.0.attention.self.query.weight": 1,
            "bert.encoder.layer.1.output.dense.bias": 2,
            "bert.pooler.dense.weight": 3,
            "classifier.weight": 3,
        },
    ),
    (
        XLMRobertaConfig(**SIZE),
        {
            "roberta.embeddings.position_embeddings.weight": 0,
            "roberta.encoder.layer.1.intermediate.dense.weight": 2,
            "classifier.dense.weight": 3,
            "classifier.out_proj.bias": 3,
        },
    ),
    (
        DebertaV2Config(**SIZE, **DEBERTA),
        {
            "deberta.embeddings.word_embeddings.weight": 0,
            "deberta.encoder.rel_embeddings.weight": 0,
            "deberta.encoder.layer.0.attention.self.query_proj.weight": 1,
            "pooler.dense.weight": 3,
            "classifier.bias": 3,
        },
    ),
    (
        GteConfig(**SIZE),
        {
            "gte.embeddings.word_embeddings.weight": 0,
            "gte.pooler.dense.weight": 3,
            "classifier.weight": 3,
        },
    ),
    (
        MPNetConfig(**SIZE),
        {
            "mpnet.embeddings.word_embeddings.weight": 0,
            "mpnet.encoder.relative_attention_bias.weight": 0,
            "mpnet.encoder.layer.1.output.dense.weight": 2,
            "classifier.dense.weight": 3,
        },
    ),
    (
        ModernBertConfig(**SIZE, pad_token_id=0),
        {
            "model.embeddings.tok_embeddings.weight": 0,
            "model.embeddings.norm.weight": 0,
            "model.layers.0.attn.Wqkv.weight": 1,
            "model.layers.1.mlp.Wo.weight": 2,
            "model.final_norm.weight": 3,
            "head.dense.weight": 3,
        },
    ),
]


@pytest.mark.parametrize(("config", "expected"), CASES, ids=lambda case: type(case).__name__)
def test_depths_count_from_the_embeddings_to_the_head(
    config: PreTrainedConfig, expected: dict[str, int]
) -> None:
    with torch.device("meta"):
        classifier = AutoModelForSequenceClassification.from_config(config)
    found = parameter_depths(classifier)
    assert set(found) == {name for name, _ in classifier.named_parameters()}
    assert {name: found[name] for name in expected} == expected
    assert set(found.values()) == {0, 1, 2, 3}
