"""What all configuration models have in common."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from xlt_ray.config.base import Frozen, Place


class Model(Frozen):
    """A model with a number and a place."""

    number: float = 0.0
    """A number."""
    place: Place = "here"
    """A place."""


def test_models_are_immutable_and_know_their_keys() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Model().number = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Model.model_validate({"numbr": 1})
    for value in (math.nan, math.inf):
        with pytest.raises(ValidationError, match="finite"):
            Model(number=value)
    assert Model.model_fields["number"].description == "A number."


@pytest.mark.parametrize(
    "place", ["demo", "a/b.json", "https://host:80/a.json#sha256=0", "s3://b/c"]
)
def test_places_without_a_login_are_kept(place: str) -> None:
    assert Model(place=place).place == place


@pytest.mark.parametrize(
    "place", ["https://user:secret@host/a", "https://host/a?token=secret", "s3://key@bucket/c"]
)
def test_places_with_a_login_or_a_query_are_refused(place: str) -> None:
    with pytest.raises(ValidationError, match="no user, password or query"):
        Model(place=place)
