"""How deep each parameter of a classifier lies; the training recipe treats depths differently."""

from __future__ import annotations

import re

from transformers import PreTrainedModel

_LAYER = re.compile(r"\.(\d+)\.")


def parameter_depths(classifier: PreTrainedModel) -> dict[str, int]:
    """Return the depth of each parameter by name.

    0 is the embeddings, 1 the lowest layer, L the top layer of L, L + 1 the head with whatever
    lies between the top layer and it, such as a pooler or a last norm. Layers that share their
    weights (ALBERT) are one layer.

    Args:
        classifier: A sequence classification model whose layers are a numbered list.
    """
    # XLM-R's head is listed before its encoder.
    encoder = f"{classifier.base_model_prefix}."
    depths: dict[str, int | None] = {}
    top = 0
    for name, _ in classifier.named_parameters():
        layer = _LAYER.search(name)
        # GTE's pooler is listed before its layers.
        if not name.startswith(encoder) or ".pooler." in name:
            depths[name] = None
        elif layer is not None:
            depths[name] = int(layer[1]) + 1
            top = max(top, int(layer[1]) + 1)
        else:
            # DeBERTa's relative embeddings and MPNet's relative biases come after their layers.
            shared = "embed" in name or "relative" in name
            depths[name] = 0 if top == 0 or shared else None
    return {name: top + 1 if depth is None else depth for name, depth in depths.items()}
