"""Validation errors in one line: where, which key, what is wrong, what is valid."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from xlt_ray.config.explain import one_line


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Uniform(Strict):
    kind: Literal["uniform"]
    low: float = Field(gt=0)


class Choice(Strict):
    kind: Literal["choice"]
    options: tuple[int, ...]


class Inner(Strict):
    names: tuple[str, ...] = Field(default=("a", "b"), min_length=2, max_length=3)
    rate: float = Field(default=0.1, gt=0, le=1)
    radius: Annotated[float, Field(ge=0)] | Literal["paper"] = "paper"
    mode: Literal["fast", "slow"] = "fast"

    @field_validator("rate")
    @classmethod
    def _not_seventh(cls, value: float) -> float:
        if value == 0.7:
            raise ValueError("anything but 0.7")
        return value


class Outer(Strict):
    inner: Inner = Inner()
    ranges: dict[str, Annotated[Uniform | Choice, Field(discriminator="kind")]] = Field(default={})
    name: str


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nam": "x"}, "unknown key 'nam' (did you mean 'name'?) (1 other key is wrong too)"),
        ({"inner": {"rat": 1}, "name": "x"}, "unknown key 'rat' in inner (did you mean 'rate'?)"),
        (
            {"inner": {"zzz": 1}, "name": "x"},
            "unknown key 'zzz' in inner (valid: names, rate, radius, mode)",
        ),
        ({}, "the key 'name' is missing"),
        (
            {"inner": {"rate": 2}, "name": "x"},
            "inner.rate: 2 is out of range, it must be > 0 and <= 1",
        ),
        ({"inner": {"rate": 0.7}, "name": "x"}, "inner.rate: anything but 0.7"),
        (
            {"inner": {"radius": -1}, "name": "x"},
            "inner.radius: -1 is out of range, it must be >= 0",
        ),
        (
            {"inner": {"radius": "papr"}, "name": "x"},
            "inner.radius: 'papr' is not valid (did you mean 'paper'?)",
        ),
        (
            {"inner": {"mode": "slwo"}, "name": "x"},
            "inner.mode: 'slwo' is not valid (did you mean 'slow'?)",
        ),
        (
            {"ranges": {"a.b": {"kind": "uniform", "lo": 1, "low": 1}}, "name": "x"},
            "unknown key 'lo' in ranges[a.b] (did you mean 'low'?)",
        ),
        (
            {"ranges": {"a.b": {"kind": "uniform", "low": 0}}, "name": "x"},
            "ranges[a.b].low: 0 is out of range, it must be > 0",
        ),
        (
            {"ranges": {"a.b": {"kind": "unifrm", "low": 0}}, "name": "x"},
            "ranges[a.b]: 'unifrm' is not valid (did you mean 'uniform'?)",
        ),
        ({"inner": {"names": ["a"]}, "name": "x"}, "inner.names: give at least 2 items, not 1"),
        ({"inner": {"names": "a"}, "name": "x"}, "inner.names: should be a list, not 'a'"),
        (
            {"inner": {"names": ["a"] * 4}, "name": "x"},
            "inner.names: give at most 3 items, not 4",
        ),
        ({"ranges": {"a.b": {"low": 1}}, "name": "x"}, "the key 'ranges[a.b].kind' is missing"),
        (
            {"ranges": {"a": {"kind": "choice", "options": [1, "b"]}}, "name": "x"},
            "ranges[a].options[1]: should be a valid integer, unable to parse string as an "
            "integer, not 'b'",
        ),
    ],
)
def test_one_line_names_the_place_and_the_remedy(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        Outer.model_validate(given)
    assert one_line(error.value, "file.yaml", Outer) == f"file.yaml: {message}"
