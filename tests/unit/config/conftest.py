"""The small search as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.small_search import SMALL


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path
