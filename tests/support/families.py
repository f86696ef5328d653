"""Tiny random encoders of many families, each with a tokenizer, as published checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig

from tests.support.tiny_encoder import DEFAULT_TEXTS, tiny_encoder

POSITIONS = 64
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": POSITIONS,
}
_OWN: dict[str, dict[str, Any]] = {
    "big_bird": {"attention_type": "original_full"},
    "convbert": {"embedding_size": 32, "head_ratio": 2},
    "deberta": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "eurobert": {"num_key_value_heads": 2},
    "fnet": {"use_tpu_fourier_optimizations": False},
    "funnel": {
        **{"block_sizes": [1, 1], "num_decoder_layers": 1, "architectures": ["FunnelModel"]},
        **{"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64},
    },
    "nystromformer": {"num_landmarks": 8, "segment_means_seq_len": POSITIONS},
    "xmod": {"languages": ["en_XX", "de_DE"]},
}
_PAD_FIRST = ("bert", "deberta-v2", "distilbert", "electra", "modernbert", "nomic_bert")


def family_encoder(folder: Path, family: str, texts: tuple[str, ...] = DEFAULT_TEXTS) -> Path:
    """Write a randomly initialised encoder of two layers and its tokenizer; return the folder.

    Args:
        folder: Where to write; created if absent.
        family: transformers' model type.
        texts: What the tokenizer is made from, as well as `DEFAULT_TEXTS`.
    """
    kind: Any = "bert" if family in _PAD_FIRST else "xlm-roberta"
    tiny_encoder(folder, kind, texts=[*texts, *DEFAULT_TEXTS])
    (folder / "model.safetensors").unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config: PreTrainedConfig = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        cls_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        sep_token_id=tokenizer.sep_token_id,
        **({} if family == "funnel" else _SIZES) | _OWN.get(family, {}),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder
