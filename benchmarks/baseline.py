"""The obvious implementation, to be compared with: the paper's code path, restated plainly.

Two forward passes over inputs padded to 128 tokens, eager attention, every layer's attention map
and hidden states returned, the whole vocabulary trained, 8 micro-batches of 4 pairs a step; and
evaluation language by language, padded to 128 tokens, in batches of 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_LENGTH = 128
MICRO_BATCH = 4
EVALUATION_BATCH = 256
PUSH_WEIGHT, PULL_WEIGHT, PULL_LAYER = 0.1, 1.0, 5


def padded(rows: Sequence[np.ndarray], pad_id: int, device: torch.device) -> dict[str, Tensor]:
    """Token ids padded to 128 tokens: `input_ids` and `attention_mask` (rows, 128)."""
    ids = np.full((len(rows), MAX_LENGTH), pad_id)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return {
        "input_ids": torch.from_numpy(ids).to(device),
        "attention_mask": torch.from_numpy(mask).to(device),
    }


def ear_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    texts: Sequence[np.ndarray],
    views: Sequence[np.ndarray],
    labels: Tensor,
    pad_id: int,
    autocast: AbstractContextManager[Any],
) -> float:
    """One optimiser step of EAR.

    Returns:
        The loss of the step's last micro-batch, as a progress bar shows it.
    """
    device = labels.device
    cross_entropy, mean_square = torch.nn.functional.cross_entropy, torch.nn.functional.mse_loss
    parts = range(0, len(texts), MICRO_BATCH)
    for start in parts:
        part = slice(start, start + MICRO_BATCH)
        with autocast:
            text, view = (
                model(
                    **padded(rows[part], pad_id, device),
                    output_attentions=True,
                    output_hidden_states=True,
                )
                for rows in (texts, views)
            )
            loss = cross_entropy(text.logits, labels[part])
            loss = loss + cross_entropy(view.logits, labels[part])
            loss = loss - PUSH_WEIGHT * mean_square(
                text.hidden_states[0].mean(1), view.hidden_states[0].mean(1)
            )
            loss = loss + PULL_WEIGHT * mean_square(
                text.attentions[PULL_LAYER], view.attentions[PULL_LAYER]
            )
        (loss / len(parts)).backward()
        shown = loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return shown


@torch.no_grad()
def evaluate(
    model: Any,
    languages: Sequence[Sequence[np.ndarray]],
    pad_id: int,
    device: torch.device,
    autocast: AbstractContextManager[Any],
) -> list[np.ndarray]:
    """Class ids of each language's texts."""
    model.eval()
    predictions = []
    for rows in languages:
        found = []
        for start in range(0, len(rows), EVALUATION_BATCH):
            inputs = padded(rows[start : start + EVALUATION_BATCH], pad_id, device)
            with autocast:
                found.append(model(**inputs).logits.argmax(-1).cpu().numpy())
        predictions.append(np.concatenate(found))
    return predictions
