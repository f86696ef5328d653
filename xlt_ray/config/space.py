"""Distributions of searched values; the search spec and the study use them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
)

from xlt_ray.config.base import Frozen


class Uniform(Frozen):
    """A number drawn uniformly."""

    distribution: Literal["uniform"]
    low: float
    """Lowest value."""
    high: float
    """Highest value."""


class LogUniform(Frozen):
    """A number whose logarithm is drawn uniformly."""

    distribution: Literal["log_uniform"]
    low: float = Field(gt=0)
    """Lowest value (> 0)."""
    high: float = Field(gt=0)
    """Highest value."""


class Integer(Frozen):
    """A whole number drawn uniformly."""

    distribution: Literal["int"]
    low: int
    """Lowest value."""
    high: int
    """Highest value, included."""


class Categorical(Frozen):
    """One of a list of values."""

    distribution: Literal["categorical"]
    choices: tuple[str | int | float | bool | None, ...] = Field(min_length=1)
    """The values."""


Distribution = Annotated[
    Uniform | LogUniform | Integer | Categorical, Field(discriminator="distribution")
]
