"""The embedding output of an encoder, and its mean over a text's tokens."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel


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


def embedding_output(classifier: PreTrainedModel) -> nn.Module:
    """Find the module whose output is E: the embedding layer's LayerNorm, before dropout.

    Dropout noise would otherwise be pushed apart like a difference between text and view. Layers
    that get the word embeddings as they are (EuroBERT's) have no such layer; those are their E.
    """
    embeddings = getattr(classifier.base_model, "embeddings", None)
    if embeddings is None:
        embeddings = classifier.get_input_embeddings()
    norms = [module for module in embeddings.modules() if isinstance(module, nn.LayerNorm)]
    return norms[-1] if norms else embeddings
