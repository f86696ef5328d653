"""The base class of all config models, and the types of their paths, URLs and language codes."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    model_validator,
)
from pydantic_core import PydanticCustomError

from xlt_ray.config.explain import TRUTH_VALUE, members


class Frozen(BaseModel):
    """Base of all spec models: immutable, no unknown keys, docstrings become descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _no_truth_value_as_number(cls, values: Any) -> Any:
        # To pydantic, True is 1 and False is 0.
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if isinstance(value, bool) and (field := cls.model_fields.get(name)):
                types = set(members(field.annotation))
                if types & {int, float} and bool not in types:
                    raise PydanticCustomError(TRUTH_VALUE, "", {"field": name, "given": value})
        return values


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


def _in_quotes(value: Any) -> Any:
    """Refuse what YAML does not read as text, and say how to write it."""
    if value is True or value is False:
        words = "yes, on and true" if value else "no, off and false"
        word = "yes" if value else "no"
        raise ValueError(
            f"YAML reads {words} without quotes as a truth value; write '{word}' in quotes"
        )
    if value is None or isinstance(value, int | float | datetime.date):
        word = "null" if value is None else str(value)
        raise ValueError(f"YAML reads {word} without quotes not as text; write '{word}' in quotes")
    return value


QuotedText = Annotated[str, BeforeValidator(_in_quotes)]
"""A text that YAML may take for a number or a truth value, such as a label."""


def _language_code(value: str) -> str:
    # The code becomes part of file names and metric names.
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,34}", value):
        raise ValueError(
            f"{value!r:.80} is no code of a language; it must be at most 35 letters, digits, `_` "
            "and `-`, such as de or zh-Hans"
        )
    return value


LanguageCode = Annotated[str, BeforeValidator(_in_quotes), AfterValidator(_language_code)]
"""A language's code: 1 to 35 letters, digits, `_` and `-`."""


_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PART = r"(\d+(?:\.\d+)?)\s*([dhms])"


def seconds_of(duration: str) -> float:
    """Return the seconds of a :data:`Duration`."""
    return sum(float(count) * _UNITS[unit] for count, unit in re.findall(_PART, duration))


def _duration(value: Any) -> Any:
    text = str(value).strip()
    if not re.fullmatch(rf"(?:{_PART}\s*)+", text) or not seconds_of(text):
        raise ValueError(f"{text!r:.80} is no duration; write one such as 2h, 90m or 1h30m")
    return text


Duration = Annotated[str, BeforeValidator(_duration)]
"""A length of time above 0: numbers with the units d, h, m and s, such as 2h or 1h30m."""
