"""Where checkpoints and search state are: a folder, or a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


def is_remote(storage: str) -> bool:
    """Whether a storage is a URI, such as s3://bucket/folder, rather than a folder."""
    return "://" in storage


def filesystem(storage: str) -> FileSystem:
    """The file system of a storage; Ray names files in it by paths without their scheme."""
    from pyarrow import fs

    return fs.FileSystem.from_uri(storage)[0] if is_remote(storage) else fs.LocalFileSystem()
