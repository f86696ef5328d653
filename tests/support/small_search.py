"""A small valid search file, and the error message for an invalid one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xlt_ray.config.loading import load_spec
from xlt_ray.errors import UserError

SMALL = """\
task: demo
model: some/encoder
search:
  parameters:
    method.push_margin: {distribution: uniform, low: 0.0, high: 0.5}
    training.learning_rate: {distribution: log_uniform, low: 1e-5, high: 5e-5}
"""
MARGIN = "search.parameters.method.push_margin"


def complaint(path: Path, overrides: dict[str, Any] | None = None) -> str:
    """Return the one-line message with which loading the search fails."""
    with pytest.raises(UserError) as caught:
        load_spec(str(path), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message
