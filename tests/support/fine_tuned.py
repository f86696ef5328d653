"""Fine-tuned tiny classifiers, and their answers as transformers computes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.support.tiny_encoder import MAX_LENGTH, tiny_encoder

LABELS = ("contra", "neutral", "entails")
ODD = [
    "",
    " ",
    "\n\t\u2028",
    "\0",
    "a\ud800b",
    "\ud83d\ude00",
    "👩‍👩‍👧‍👦 \u202eabc\u200b",
    "e\u0301" * 50,
    "зеркало " * 5000,
    "x" * 20_000,
    "老人在安静的花园里看书。",
]
"""Texts that a tokenizer or its caller could stumble over."""


def write_model(folder: Path, family: Any, columns: list[str] | None) -> Path:
    """Write a classifier with random weights whose probabilities are far from uniform."""
    tiny_encoder(folder, family)
    names = dict(enumerate(LABELS))
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=3, id2label=names, label2id={name: i for i, name in names.items()}
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            # Position weights are the same for all texts and must not dominate.
            shared = "position" in name or "token_type" in name
            torch.nn.init.normal_(parameter, std=0.05 if shared else 0.3)
    model.save_pretrained(folder)
    if columns is not None:
        (folder / "task.json").write_text(json.dumps({"text_columns": columns}), encoding="utf-8")
    return folder


def one_by_one(folder: Path, texts: list[Any]) -> np.ndarray:
    """Probabilities (texts, classes) as transformers' documentation computes them."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    with torch.no_grad():
        for text in texts:
            given = (text,) if isinstance(text, str) else text
            # In lists, since transformers ignores an empty second text of a bare pair.
            valid = (
                [t.encode("utf-16", "surrogatepass").decode("utf-16", "replace")] for t in given
            )
            tokens = tokenizer(*valid, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
            rows.append(model(**tokens).logits.softmax(-1)[0].numpy())
    return np.array(rows)
