"""The base class of all config models, and the types of their paths, URLs and language codes."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
)


class Frozen(BaseModel):
    """Base of all spec models: immutable, no unknown keys, docstrings become descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


def _without_login(place: str) -> str:
    # Every run records its spec, in parameters and artifacts.
    _, separator, rest = place.partition("://")
    host = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]@:?#]*)(:[0-9]*)?", rest.partition("/")[0])
    if separator and (host is None or "?" in rest):
        raise ValueError(
            "a URL is recorded with every run and must have no user, password or query; "
            "download the file and give its path"
        )
    return place


Place = Annotated[str, AfterValidator(_without_login)]
"""A name, a path, or a URL without user, password and query."""


def _language_code(value: str) -> str:
    # The code becomes part of file names and metric names.
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,34}", value):
        raise ValueError(
            f"{value!r:.80} is no code of a language; it must be at most 35 letters, digits, `_` "
            "and `-`, such as de or zh-Hans"
        )
    return value


LanguageCode = Annotated[str, AfterValidator(_language_code)]
"""A language's code: 1 to 35 letters, digits, `_` and `-`."""
