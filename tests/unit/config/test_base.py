"""What all configuration models have in common."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from xlt_ray.config.base import Duration, Frozen, Place, seconds_of
from xlt_ray.config.explain import one_line


class Model(Frozen):
    """A model with numbers and a place."""

    number: float = 0.0
    """A number."""
    share: float | Literal["paper"] | None = None
    """A number, a word or nothing."""
    either: int | bool = 0
    """A number or a truth value."""
    place: Place = "here"
    """A place."""
    time: Duration = "1h"
    """A duration."""


def test_models_are_immutable_and_know_their_keys() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Model().number = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Model.model_validate({"numbr": 1})
    for value in (math.nan, math.inf):
        with pytest.raises(ValidationError, match="finite"):
            Model(number=value)
    assert Model.model_fields["number"].description == "A number."


class Outer(Frozen):
    """A model with a section."""

    inner: Model = Model()
    """The section."""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"number": True},
            "inner.number: expected a number, not a truth value (which YAML reads in",
        ),
        ({"number": False}, "false, no and off"),
        ({"share": True}, "inner.share: expected a number"),
    ],
)
def test_a_truth_value_is_no_number(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate({"inner": values})
    assert message in one_line(raised.value, "file.yaml", Outer)


def test_whole_numbers_are_numbers_and_truth_values_stay() -> None:
    assert Model(number=1, share=2).number == 1.0
    assert Model(either=True).either is True


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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("1.5 h", 5400), ("45s", 45), ("1d 1s", 86401)],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert seconds_of(Model(time=text).time) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "0h", "-1h", "2 hours", "1h30", "1w", 90, None])
def test_other_durations_are_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValidationError, match="is no duration; write one such as 2h"):
        Model.model_validate({"time": text})
