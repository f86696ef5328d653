"""Writing whole files, the cache folder, and paths as a person would type them."""

from __future__ import annotations

import os
from pathlib import Path


def relative(path: Path) -> Path:
    """A path as a person in this folder would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def cache_folder() -> Path:
    """Where prepared data is kept: $XLT_RAY_CACHE, or ~/.cache/xlt-ray."""
    return Path(os.environ.get("XLT_RAY_CACHE") or Path.home() / ".cache" / "xlt-ray")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is never seen, or left, in part."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
