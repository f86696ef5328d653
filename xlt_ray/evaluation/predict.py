"""Zero-shot evaluation: every language of a split in one pass, from longest to shortest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from xlt_ray.data.batching import pad_inputs, token_budget_batches
from xlt_ray.distributed import Workers
from xlt_ray.encoders.packing import TokenPacking

TOKEN_BUDGET = 4096
"""Tokens of one evaluation batch, padding included."""


def predict(
    classifier: PreTrainedModel,
    inputs: Mapping[str, Sequence[np.ndarray]],
    *,
    pad_id: int,
    workers: Workers,
) -> np.ndarray:
    """Classify texts as :func:`class_probabilities` does; return class ids (texts,) only."""
    return class_probabilities(classifier, inputs, pad_id=pad_id, workers=workers).argmax(1)


@torch.inference_mode()
def class_probabilities(
    classifier: PreTrainedModel,
    inputs: Mapping[str, Sequence[np.ndarray]],
    *,
    pad_id: int,
    workers: Workers,
    token_budget: int = TOKEN_BUDGET,
) -> np.ndarray:
    """Classify texts, shared among the workers; return the probability of every class.

    Args:
        classifier: A sequence classification model.
        inputs: `input_ids` of each text, and `token_type_ids` if the encoder uses them.
        pad_id: The id that pads `input_ids`.
        workers: This worker and its peers; each classifies its share and gets all results.
        token_budget: Tokens of one batch, padding included.

    Returns:
        Probabilities (texts, classes), float32 in [0, 1], in the order of the inputs and the same
        on every worker.
    """
    training = classifier.training
    classifier.eval()
    texts = len(inputs["input_ids"])
    shape = texts, len(classifier.config.id2label or ())
    # A batch is one worker's, so a sum with zeros puts the shares together. A maximum would do so
    # too, but may drop NaN, by which the trainer knows broken weights.
    probabilities = torch.zeros(shape, dtype=torch.float32, device=workers.device)
    for batch, logits in batch_logits(classifier, inputs, pad_id, workers, token_budget):
        places = torch.from_numpy(batch).to(workers.device)
        probabilities[places] = logits.float().softmax(-1)
    classifier.train(training)
    return np.asarray(workers.sum(probabilities).cpu().numpy())


def batch_logits(
    classifier: PreTrainedModel,
    inputs: Mapping[str, Sequence[np.ndarray]],
    pad_id: int,
    workers: Workers,
    token_budget: int = TOKEN_BUDGET,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield the logits of a worker's share of some texts, from the longest batch to the shortest.

    Args:
        classifier: A sequence classification model, in evaluation mode.
        inputs: `input_ids` of each text, and `token_type_ids` if the encoder uses them.
        pad_id: The id that pads `input_ids`.
        workers: This worker and its peers.
        token_budget: Tokens of one batch, padding included.

    Yields:
        Indices of a batch's texts (batch,), and their logits (batch, classes).
    """
    packing = TokenPacking.on(classifier)
    lengths = np.array([len(row) for row in inputs["input_ids"]])
    batches = token_budget_batches(lengths, token_budget)
    for batch in batches[workers.rank :: workers.size]:
        model_inputs = padded_batch(inputs, batch, pad_id, workers.device)
        tokens = model_inputs.pop("tokens")
        with workers.autocast(), packing.of(tokens, model_inputs["attention_mask"]):
            logits = classifier(**model_inputs).logits
        yield batch, logits


def padded_batch(
    inputs: Mapping[str, Sequence[np.ndarray]],
    batch: np.ndarray,
    pad_id: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """Build a model's inputs from some texts.

    Args:
        inputs: `input_ids` of each text, and `token_type_ids` if the encoder uses them.
        batch: Indices of the texts (batch,).
        pad_id: The id that pads `input_ids`.
        device: Where the tensors go.

    Returns:
        The tensors of :func:`xlt_ray.data.batching.pad_inputs`.
    """
    arrays = pad_inputs({name: [rows[i] for i in batch] for name, rows in inputs.items()}, pad_id)
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
