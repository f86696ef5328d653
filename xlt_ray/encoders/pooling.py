"""The embedding output of an encoder, and its mean over a text's tokens."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
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


def watch_embeddings(
    classifier: PreTrainedModel, keep: Callable[[Tensor], None]
) -> RemovableHandle:
    """Call a function with E at every forward pass: the embedding layer's output before dropout.

    Dropout noise would otherwise be pushed apart like a difference between text and view. In most
    families the dropout gets the output of the layer's LayerNorm, in others (BigBird) what comes
    before it, or there is no LayerNorm (XLM-R XL). Layers that get the word embeddings as they are
    (EuroBERT's) have no embedding layer; those are their E.

    Args:
        classifier: A sequence classification model.
        keep: Gets the embeddings (batch, tokens, hidden).

    Returns:
        A handle whose `remove` ends the watch.
    """
    embeddings = getattr(classifier.base_model, "embeddings", None)
    if embeddings is None:
        embeddings = classifier.get_input_embeddings()
    dropouts = [module for module in embeddings.modules() if isinstance(module, nn.Dropout)]
    if dropouts:
        return dropouts[-1].register_forward_pre_hook(lambda module, inputs: keep(inputs[0]))
    norms = [module for module in embeddings.modules() if isinstance(module, nn.LayerNorm)]
    output = norms[-1] if norms else embeddings
    return output.register_forward_hook(lambda module, inputs, found: keep(found))
