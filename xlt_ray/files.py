"""Files and folders that appear complete or not at all, the cache folder, paths for display.

All packages use these functions.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from xlt_ray.errors import UserError


def relative(path: Path) -> Path:
    """Return a path relative to the working folder, or the path itself if it lies elsewhere."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def nearest_existing(path: Path) -> Path:
    """Return a path, absolute, or its nearest parent that exists."""
    path = path.absolute()
    return next(above for above in (path, *path.parents) if above.exists())


def cache_folder() -> Path:
    """Return the folder for downloads and prepared data; it may not exist yet.

    Returns:
        ``$XLT_RAY_CACHE`` if it is set, else the user's cache folder for xlt-ray (on Linux
        ``~/.cache/xlt-ray``, or the same name in ``$XDG_CACHE_HOME``).
    """
    chosen = os.environ.get("XLT_RAY_CACHE")
    return Path(chosen).expanduser() if chosen else user_cache_path("xlt-ray", appauthor=False)


def check_cache() -> None:
    """Check that the cache folder can be written to. A missing folder is not created.

    Raises:
        UserError: If it cannot, or if it lies in a home folder that does not exist.
    """
    remedy = "set XLT_RAY_CACHE to a folder that can be written to"
    try:
        folder = cache_folder()
        if not folder.is_absolute() and str(folder).startswith("~"):
            raise RuntimeError("no home folder")
        with tempfile.TemporaryFile(dir=nearest_existing(folder)):
            pass
    except RuntimeError:
        raise UserError(f"cache folder: there is no home folder to put it in; {remedy}") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            f"cache folder {folder}: cannot be written to ({reason}); {remedy}"
        ) from None


def write_whole(path: Path, text: str) -> None:
    """Write a text file (UTF-8) atomically: readers see the old content or all of the new.

    Args:
        path: The file; its folder exists.
        text: The new content.
    """
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def json_text(value: Any) -> str:
    """Return a value as indented JSON; NaN and infinities, which JSON lacks, become null.

    Args:
        value: Mappings, sequences, texts, numbers, booleans and None, nested as needed.
    """
    return json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dictionary; a hook for ``json.loads``.

    Raises:
        ValueError: If a key is given twice, of which ``json.loads`` alone would keep the last.
    """
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return row


def with_nan(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics read from JSON, with NaN where :func:`json_text` wrote null."""
    return {name: math.nan if value is None else value for name, value in metrics.items()}


def finite(value: Any) -> Any:
    """Return a value with null for NaN and infinities, which JSON lacks; others as they are."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, list | tuple) else value


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Build a folder under a temporary name and publish it when the block ends without an error.

    Several processes may build the same content at once; the first one to finish publishes it.

    Args:
        folder: The final name. Its parents are created.

    Yields:
        An empty sibling folder to write to. It is deleted if the block raises an error.

    Raises:
        OSError: If the folder cannot be made or published.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield building
        try:
            os.replace(building, folder)
        except OSError:
            # Another process was faster: a folder that is not empty cannot be replaced.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
