"""Short names of encoders in wide use. `docs/models-and-data.md` shows this table."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import NamedTuple


class KnownEncoder(NamedTuple):
    """An encoder on the Hugging Face hub."""

    hub: str
    """Its name on the hub."""
    parameters: int
    """Millions of parameters, the embedding table included."""
    licence: str
    """Licence of the weights."""
    languages: str
    """How many languages it was pretrained on."""


ENCODERS = {
    "e5-small": KnownEncoder("intfloat/multilingual-e5-small", 118, "MIT", "100"),
    "e5-base": KnownEncoder("intfloat/multilingual-e5-base", 278, "MIT", "100"),
    "mbert": KnownEncoder("google-bert/bert-base-multilingual-cased", 178, "Apache-2.0", "104"),
    "mdeberta-v3-base": KnownEncoder("microsoft/mdeberta-v3-base", 276, "MIT", "100"),
    "mmbert-base": KnownEncoder("jhu-clsp/mmBERT-base", 307, "MIT", "over 1,800"),
    "xlm-v-base": KnownEncoder("facebook/xlm-v-base", 779, "MIT", "100"),
    "xlmr-base": KnownEncoder("FacebookAI/xlm-roberta-base", 278, "MIT", "100"),
    "xlmr-large": KnownEncoder("FacebookAI/xlm-roberta-large", 560, "MIT", "100"),
}
"""The encoders by short name."""


def hub_name(model: str) -> str:
    """Return the hub name that a short name stands for; any other model stays as it is.

    A local folder of that name comes first, as for hub names.

    Args:
        model: The spec's model.
    """
    known = ENCODERS.get(model)
    return model if known is None or Path(model).exists() else known.hub


def suggestion(model: str) -> str:
    """Return `` (did you mean 'x'?)`` for a model near a short or hub name, else an empty text."""
    names = [*ENCODERS, *(known.hub for known in ENCODERS.values())]
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(model.lower(), lower, n=1, cutoff=0.7)
    return f" (did you mean '{lower[close[0]]}'?)" if close else ""
