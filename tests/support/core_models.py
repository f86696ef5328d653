"""Tiny random classifiers of several families, without a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

FAMILIES = ("bert", "xlm-roberta", "distilbert", "albert")
"""Families that attend through transformers' attention interface."""
PAD = 1
VOCABULARY = 60


def tiny_classifier(family: str, layers: int = 2, hidden: int = 32, heads: int = 4) -> Any:
    """Build a classifier of three classes in eval mode.

    Its weights are large, so that its attention is far from uniform.
    """
    common: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "num_labels": 3}
    sizes: dict[str, Any] = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": 64,
        "initializer_range": 0.15,
    }
    model: PreTrainedModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "bert":
            model = BertForSequenceClassification(BertConfig(**common, **sizes))
        elif family == "xlm-roberta":
            config = XLMRobertaConfig(
                type_vocab_size=1, bos_token_id=0, eos_token_id=2, **common, **sizes
            )
            model = XLMRobertaForSequenceClassification(config)
        elif family == "albert":
            model = AlbertForSequenceClassification(
                AlbertConfig(embedding_size=16, **common, **sizes)
            )
        elif family == "deberta-v2":
            model = DebertaV2ForSequenceClassification(
                DebertaV2Config(
                    relative_attention=True, pos_att_type=["p2c", "c2p"], **common, **sizes
                )
            )
        elif family == "distilbert":
            model = DistilBertForSequenceClassification(
                DistilBertConfig(
                    dim=hidden,
                    n_layers=layers,
                    n_heads=heads,
                    hidden_dim=2 * hidden,
                    max_position_embeddings=64,
                    initializer_range=0.15,
                    **common,
                )
            )
        else:
            raise ValueError(family)
    return model.eval()


def random_texts(lengths: Sequence[int], seed: int) -> list[list[int]]:
    """Random token ids, none of them padding."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(5, VOCABULARY, (length,), generator=generator).tolist() for length in lengths
    ]


def padded(texts: Sequence[Sequence[int]], extra: int = 0) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` of texts, padded to the longest and `extra` tokens more."""
    width = max(map(len, texts)) + extra
    ids = torch.full((len(texts), width), PAD)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return {"input_ids": ids, "attention_mask": mask}
