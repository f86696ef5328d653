"""Copy files of a machine to a bucket, so that they outlive the machine.

    python keep_in_bucket.py restore s3://BUCKET/head mlflow runs
    python keep_in_bucket.py keep s3://BUCKET/head mlflow runs

`restore` downloads the files that these folders lack. `keep` uploads changed files every minute,
and a last time when it gets SIGTERM or SIGINT. A file that ends in `.db` is an SQLite database;
its copy is consistent even while other processes write to it.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from pyarrow.fs import FileSelector, FileSystem, FileType

Stamp = tuple[int, int]
"""Size and time of a file's last change."""

_OF_A_PROCESS = ("-wal", "-shm", "-journal", ".lock")
"""Endings of files that mean something only beside the process that made them."""


def restore(uri: str, folders: list[str]) -> int:
    """Fetch the files of folders that are in the bucket and not here.

    Args:
        uri: The bucket, or a folder in it.
        folders: Names of folders, relative to the working folder and to the URI.

    Returns:
        How many files were fetched.
    """
    bucket, root = FileSystem.from_uri(uri)
    fetched = 0
    for folder in folders:
        selector = FileSelector(f"{root}/{folder}", recursive=True, allow_not_found=True)
        for found in bucket.get_file_info(selector):
            path = Path(found.path.removeprefix(f"{root}/"))
            if found.type != FileType.File or path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            # Whole or not at all: a later restore would take a part of it for the file.
            with bucket.open_input_stream(found.path) as source, _beside(path) as part:
                with part.open("wb") as target:
                    shutil.copyfileobj(source, target)
                part.replace(path)
            fetched += 1
    return fetched


def copy_changed(uri: str, folders: list[str], copied: dict[Path, Stamp]) -> int:
    """Copy to the bucket what has changed in folders.

    Args:
        uri: The bucket, or a folder in it.
        folders: Names of folders, relative to the working folder and to the URI.
        copied: The files that are in the bucket, as of when; kept up to date.

    Returns:
        How many files were copied.
    """
    bucket, root = FileSystem.from_uri(uri)
    count = 0
    for path in (path for folder in folders for path in Path(folder).rglob("*")):
        if not path.is_file() or path.name.endswith(_OF_A_PROCESS):
            continue
        stamp = _stamp(path)
        if copied.get(path) == stamp:
            continue
        # An object of a bucket appears when it is written to its end, not before.
        with (
            _snapshot(path) as whole,
            whole.open("rb") as source,
            bucket.open_output_stream(f"{root}/{path}") as target,
        ):
            shutil.copyfileobj(source, target)
        copied[path] = stamp
        count += 1
    return count


def keep(uri: str, folders: list[str], seconds: float) -> None:
    """Copy what has changed again and again, until SIGTERM or SIGINT, and then once more."""
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    copied: dict[Path, Stamp] = {}
    last = False
    while not last:
        last = ended.wait(seconds)
        try:
            count = copy_changed(uri, folders, copied)
        except (OSError, sqlite3.Error) as error:  # the next round makes up for it
            print(f"not copied to {uri}: {error}", file=sys.stderr, flush=True)
        else:
            if count:
                print(f"{count} files copied to {uri}", flush=True)


def _stamp(path: Path) -> Stamp:
    """What tells whether a file has changed; a database's latest changes may be in its log."""
    log = path.with_name(f"{path.name}-wal")
    seen = [file.stat() for file in (path, log) if file.exists()]
    return sum(file.st_size for file in seen), max(file.st_mtime_ns for file in seen)


@contextlib.contextmanager
def _snapshot(path: Path) -> Iterator[Path]:
    """A file that is not written to while it is read: of a database a copy, else itself."""
    if path.suffix != ".db":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        yield copy


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path in the same folder to write to first; nothing stays there."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=["restore", "keep"])
    parser.add_argument("uri", help="the bucket, or a folder in it")
    parser.add_argument("folders", nargs="+", help="relative to the working folder")
    parser.add_argument("--seconds", type=float, default=60, help="between two copies (60)")
    given = parser.parse_args()
    if given.what == "restore":
        print(f"{restore(given.uri, given.folders)} files fetched from {given.uri}")
    else:
        keep(given.uri, given.folders, given.seconds)


if __name__ == "__main__":
    main()
