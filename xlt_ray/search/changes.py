"""Which keys of a search changed that affect its trials; resuming it and its warnings ask."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from xlt_ray.config.keys import flatten
from xlt_ray.config.spec import SearchSpec

HARMLESS = (
    "description",
    "search.num_trials",
    "search.time_budget",
    "search.target",
    "resources.price_per_gpu_hour",
    "search.max_concurrent",
    "search.max_failures",
    "search.confirmation.",
    "search.keep_weights",
    "search.soups",
    "search.baselines",
    "search.comparison_seeds",
    "assessment.",
)
"""Keys, or prefixes of keys, that do not affect a trial: they may differ in a resumed search."""


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the old and new value of each changed key, except harmless keys."""
    with contextlib.suppress(ValidationError):
        # A key that an earlier version did not have gets its default.
        before = SearchSpec.model_validate(before).model_dump(mode="json")
    old, new = flatten(before), flatten(after)
    return {
        key: (old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not key.startswith(HARMLESS)
    }
