"""The storage of checkpoints and search state: a local folder or a bucket.

The command line checks it; cluster and search read and write files in it.
"""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from xlt_ray.errors import UserError, in_one_line, nearest
from xlt_ray.files import nearest_existing

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "file")
_SETTINGS = frozenset(
    {"region", "scheme", "endpoint_override", "allow_bucket_creation", "allow_bucket_deletion"}
)


def is_remote(storage: str) -> bool:
    """Tell whether a storage is a URI, such as s3://bucket/folder, rather than a folder."""
    return "://" in storage


def below(storage: str, name: str) -> str:
    """Return a subfolder of a storage; a URI keeps its query at the end."""
    place, mark, query = storage.partition("?") if is_remote(storage) else (storage, "", "")
    return f"{place}/{name}{mark}{query}"


def check_storage(storage: str) -> None:
    """Check that a storage is well-formed, without connecting to it.

    Raises:
        UserError: If it is a URI with an unknown scheme, without a bucket or with credentials, or
            a folder that cannot be created.
    """
    if not is_remote(storage):
        existing = nearest_existing(Path(storage))
        if not existing.is_dir():
            raise UserError(f"--storage {storage}: {existing} is not a folder")
        return
    scheme, _, rest = storage.partition("://")
    place, _, query = rest.partition("?")
    if scheme not in _SCHEMES:
        raise UserError(f"--storage: unknown scheme '{scheme}'{nearest(scheme, _SCHEMES)}")
    # Ray saves the URI in the search state.
    if "@" in place or not parse_qs(query, keep_blank_values=True).keys() <= _SETTINGS:
        raise UserError(
            f"--storage {scheme}://***: must hold no credentials; put them into the environment, "
            f"such as AWS_ACCESS_KEY_ID (a query may set {', '.join(sorted(_SETTINGS))})"
        )
    if not place.strip("/"):
        raise UserError(f"--storage {storage}: names no bucket; expected s3://BUCKET/FOLDER")


def filesystem(storage: str) -> FileSystem:
    """Return the file system of a storage. Its paths have no scheme; Ray uses the same paths."""
    from pyarrow import fs

    return fs.FileSystem.from_uri(storage)[0] if is_remote(storage) else fs.LocalFileSystem()


def path_in(storage: str, name: str) -> str:
    """Return the path of a file in a storage, as its file system and Ray name it."""
    from pyarrow import fs

    folder = fs.FileSystem.from_uri(storage)[1] if is_remote(storage) else storage
    return f"{folder}/{name}"


def fetch(storage: str, source: str, folder: Path) -> Path:
    """Copy a file from a storage into a local folder, in blocks of 16 MiB.

    Args:
        storage: Folder or URI.
        source: The file's path, as :func:`path_in` returns it.
        folder: The existing local folder; the file keeps its name.

    Returns:
        The path of the copy.
    """
    copy = folder / source.rpartition("/")[2]
    with filesystem(storage).open_input_stream(source) as file, copy.open("wb") as written:
        while block := file.read(2**24):
            written.write(block)
    return copy


def try_writing(storage: str) -> None:
    """Write a file to a storage and delete it. A missing local folder is not created.

    Raises:
        UserError: If the storage cannot be written to.
    """
    try:
        if not is_remote(storage):
            with tempfile.TemporaryFile(dir=nearest_existing(Path(storage))) as file:
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
        reason = in_one_line(error)
        raise UserError(f"--storage {storage}: cannot be written to: {reason}") from None


def write_problem(error: BaseException) -> str | None:
    """Return why a storage could not be written to, or None if the error has another cause.

    The text of the error is searched because Tune passes on other libraries' errors as text.
    """
    signs = ("No space left on device", "Read-only file system", "Disk quota exceeded")
    return next((sign[0].lower() + sign[1:] for sign in signs if sign in str(error)), None)
