"""Folders and buckets: paths in them, and the error for one that cannot be written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlt_ray.errors import UserError
from xlt_ray.storage import below, try_writing, write_problem


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ("runs", "runs/demo/checkpoints"),
        ("s3://bucket/runs", "s3://bucket/runs/demo/checkpoints"),
        ("s3://bucket/runs?region=eu-west-1", "s3://bucket/runs/demo/checkpoints?region=eu-west-1"),
        # A folder may have any name.
        ("what?", "what?/demo/checkpoints"),
    ],
)
def test_a_folder_of_a_storage_keeps_the_query_at_its_end(storage: str, expected: str) -> None:
    assert below(storage, "demo/checkpoints") == expected


@pytest.mark.parametrize("uri", [False, True])
def test_a_storage_that_takes_files_is_left_as_it_was(tmp_path: Path, uri: bool) -> None:
    folder = tmp_path / "runs"
    try_writing(f"file://{folder}" if uri else str(folder))
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize("storage", ["/proc/runs", "file:///proc/runs"])
def test_a_storage_that_takes_none_is_told_in_a_line(storage: str) -> None:
    with pytest.raises(UserError, match="cannot be written to") as told:
        try_writing(storage)
    assert storage in str(told.value) and "\n" not in str(told.value)


def test_a_full_disk_is_known_also_from_another_error_s_text() -> None:
    wrapped = RuntimeError("Traceback ...\nOSError: [Errno 28] No space left on device")
    assert write_problem(wrapped) == "no space left on device"
    assert write_problem(RuntimeError("something else")) is None
