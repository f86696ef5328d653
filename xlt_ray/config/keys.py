"""Dotted keys of nested config, such as method.push_margin: flatten a tree, set a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xlt_ray.errors import UserError


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into dotted keys, such as ``method.view.radius``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, Mapping):
            flat.update(flatten(value, path))
        else:
            flat[path] = value
    return flat


def _split_key(key: str, value: Any) -> list[str]:
    """Split a dotted key, but keep the dots of a searched key: search.parameters.a.b.low."""
    parts = key.split(".")
    if parts[:2] != ["search", "parameters"] or len(parts) < 4:
        return parts
    if isinstance(value, Mapping):
        return ["search", "parameters", ".".join(parts[2:])]
    return ["search", "parameters", ".".join(parts[2:-1]), parts[-1]]


def set_key(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in a nested dictionary; create missing sections.

    Raises:
        UserError: If a section on the path is a value instead of a mapping.
    """
    parts = _split_key(key, value)
    for depth, part in enumerate(parts[:-1]):
        below = tree.setdefault(part, {})
        if not isinstance(below, dict):
            raise UserError(f"{key}: '{'.'.join(parts[: depth + 1])}' is a value, not a section")
        tree = below
    tree[parts[-1]] = value
