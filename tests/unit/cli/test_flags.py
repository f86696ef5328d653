"""How flags become keys of the spec."""

from __future__ import annotations

import pytest

from xlt_ray.cli.flags import given, spec_changes
from xlt_ray.errors import UserError


def test_only_flags_that_were_set_count() -> None:
    assert given({"a": None, "b": 0, "c": False, "d": ""}) == {"b": 0, "c": False, "d": ""}


def test_overrides_and_flags_are_merged() -> None:
    changes = spec_changes(["training.epochs=2"], {"search.seed": 7})
    assert changes == {"training.epochs": 2, "search.seed": 7}
    assert spec_changes(None, {}) == {}


def test_a_key_is_set_once() -> None:
    with pytest.raises(UserError, match=r"--set search\.seed: another flag sets this key too"):
        spec_changes(["search.seed=1"], {"search.seed": 7})
