"""Dotted keys of nested configuration."""

from __future__ import annotations

from typing import Any

import pytest

from xlt_ray.config.keys import flatten, set_key
from xlt_ray.errors import UserError


def test_flatten_joins_keys_with_dots() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": [2],
        "e": None,
    }


def test_a_key_is_set_in_sections_made_on_the_way() -> None:
    tree: dict[str, Any] = {"method": {"name": "ear"}}
    set_key(tree, "method.view.radius", 0.5)
    set_key(tree, "training", {"epochs": 2})
    assert tree == {"method": {"name": "ear", "view": {"radius": 0.5}}, "training": {"epochs": 2}}


def test_a_searched_key_keeps_its_own_dots() -> None:
    tree: dict[str, Any] = {}
    set_key(tree, "search.parameters.method.view.radius", {"low": 0})
    set_key(tree, "search.parameters.method.view.radius.low", 0.1)
    assert tree == {"search": {"parameters": {"method.view.radius": {"low": 0.1}}}}


def test_a_key_below_a_value_is_an_error() -> None:
    with pytest.raises(UserError, match=r"task\.name: 'task' is a value"):
        set_key({"task": "demo"}, "task.name", 3)
