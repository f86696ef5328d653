"""Where checkpoints and search state are: a folder, or a bucket."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from xlt_ray.errors import UserError, nearest

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "file")
_SETTINGS = frozenset(
    {"region", "scheme", "endpoint_override", "allow_bucket_creation", "allow_bucket_deletion"}
)


def is_remote(storage: str) -> bool:
    """Whether a storage is a URI, such as s3://bucket/folder, rather than a folder."""
    return "://" in storage


def below(storage: str, name: str) -> str:
    """A folder of a storage; a URI's query stays at its end."""
    place, mark, query = storage.partition("?") if is_remote(storage) else (storage, "", "")
    return f"{place}/{name}{mark}{query}"


def check_storage(storage: str) -> None:
    """Check, without reaching for it, that a storage could be written to.

    Raises:
        UserError: If it is a URI of an unknown kind, without a bucket or with credentials, or a
            folder that cannot be made.
    """
    if not is_remote(storage):
        existing = _nearest(storage)
        if not existing.is_dir():
            raise UserError(f"--storage {storage}: {existing} is not a folder")
        return
    scheme, _, rest = storage.partition("://")
    place, _, query = rest.partition("?")
    if scheme not in _SCHEMES:
        raise UserError(f"--storage: unknown scheme '{scheme}'{nearest(scheme, _SCHEMES)}")
    # Ray writes the URI into the state of the search.
    if "@" in place or not parse_qs(query, keep_blank_values=True).keys() <= _SETTINGS:
        raise UserError(
            f"--storage {scheme}://***: must hold no credentials; put them into the environment, "
            f"such as AWS_ACCESS_KEY_ID (a query may set {', '.join(sorted(_SETTINGS))})"
        )
    if not place.strip("/"):
        raise UserError(f"--storage {storage}: names no bucket; expected s3://BUCKET/FOLDER")


def _nearest(folder: str) -> Path:
    """A folder, or the nearest above it that exists."""
    path = Path(folder).absolute()
    return next(above for above in (path, *path.parents) if above.exists())


def filesystem(storage: str) -> FileSystem:
    """The file system of a storage; Ray names files in it by paths without their scheme."""
    from pyarrow import fs

    return fs.FileSystem.from_uri(storage)[0] if is_remote(storage) else fs.LocalFileSystem()


def path_in(storage: str, name: str) -> str:
    """A file of a storage as its file system and Ray name it."""
    from pyarrow import fs

    folder = fs.FileSystem.from_uri(storage)[1] if is_remote(storage) else storage
    return f"{folder}/{name}"


def fetch(storage: str, source: str, folder: Path) -> Path:
    """Copy a file of a storage into a folder, block by block.

    Args:
        storage: Folder or URI.
        source: The file's path, as Ray names it.
        folder: Where to; the name stays.
    """
    copy = folder / source.rpartition("/")[2]
    with filesystem(storage).open_input_stream(source) as file, copy.open("wb") as written:
        while block := file.read(2**24):
            written.write(block)
    return copy


def try_writing(storage: str) -> None:
    """Write a file to a storage and delete it; a folder that is not there yet is not made.

    Raises:
        UserError: If that fails.
    """
    try:
        if not is_remote(storage):
            with tempfile.TemporaryFile(dir=_nearest(storage)) as file:
                file.write(b"written to try")
            return
        from pyarrow import fs

        files, folder = fs.FileSystem.from_uri(storage)
        name = f"{folder}/{uuid.uuid4().hex}"
        files.create_dir(folder, recursive=True)
        with files.open_output_stream(name) as stream:
            stream.write(b"written to try")
        files.delete_file(name)
    except OSError as error:
        told = " ".join(str(error).split())
        raise UserError(f"--storage {storage}: cannot be written to: {told}") from None


def write_problem(error: BaseException) -> str | None:
    """Why a storage could not be written to, where an error says so; Tune tells other libraries'
    errors as text only."""
    signs = ("No space left on device", "Read-only file system", "Disk quota exceeded")
    return next((sign[0].lower() + sign[1:] for sign in signs if sign in str(error)), None)
