"""A journal keeps every complete line, whatever happens to the last one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xlt_ray.journal import Journal

RECORDS: list[dict[str, Any]] = [
    {"trial": "01", "value": 0.5},
    {"text": "größer\nals"},
    {},
    {"nested": [1, None]},
]


def filled(file: Path) -> Journal:
    journal = Journal(file)
    for record in RECORDS:
        journal.append(record)
    return journal


def test_lines_are_read_back_from_every_offset(tmp_path: Path) -> None:
    journal = filled(tmp_path / "lines.jsonl")
    read = list(journal.read())
    assert [record for _, record in read] == RECORDS
    for count, (end, _) in enumerate(read, 1):
        assert [record for _, record in journal.read(end)] == RECORDS[count:]
    assert read[-1][0] == (tmp_path / "lines.jsonl").stat().st_size


def test_a_line_torn_anywhere_is_skipped_then_dropped(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    content = filled(file).file.read_bytes()
    for size in range(len(content) + 1):
        file.write_bytes(content[:size])
        whole = content[:size].count(b"\n")
        journal = Journal(file)
        assert [record for _, record in journal.read()] == RECORDS[:whole]
        assert file.read_bytes() == content[:size]
        journal.drop_torn_line()
        journal.append({"next": size})
        assert [record for _, record in journal.read()] == [*RECORDS[:whole], {"next": size}]


def test_no_file_is_an_empty_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "none.jsonl")
    journal.drop_torn_line()
    assert list(journal.read()) == [] and not journal.file.exists()


def test_a_full_disk_leaves_no_partial_line() -> None:
    with pytest.raises(OSError, match="space"):
        Journal(Path("/dev/full")).append({"any": 1})


def test_values_that_json_cannot_hold_need_a_default(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    with pytest.raises(TypeError):
        Journal(file).append({"path": Path("a")})
    assert not file.exists()
    Journal(file, default=str).append({"path": Path("a")})
    assert [record for _, record in Journal(file).read()] == [{"path": "a"}]
