"""An append-only file of JSON lines that survives a crash.

The search's ledger and the records for MLflow are such files.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


class Journal:
    """Appends and reads JSON objects, one a line.

    A line is complete once it ends with a newline; readers skip a last line that does not. Several
    processes may read the file while one writes it.

    Args:
        file: The file; the first append creates it and its folder.
        default: Converts a value that JSON cannot hold; None: such a value raises TypeError.
    """

    def __init__(self, file: Path, default: Callable[[Any], Any] | None = None) -> None:
        self.file = file
        self._default = default

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line.

        Raises:
            OSError: If the disk is full; the file then ends where it ended before.
        """
        line = json.dumps(record, default=self._default).encode() + b"\n"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if file.write(line) != len(line):
                # A partial line would corrupt the next one.
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file))

    def read(self, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the complete lines from an offset on; none if there is no file.

        Args:
            start: Offset in bytes, where a line begins.

        Yields:
            The offset after each line, and its record.
        """
        if not self.file.exists():
            return
        with self.file.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                start += len(line)
                yield start, json.loads(line)

    def drop_torn_line(self) -> None:
        """Remove an incomplete last line, which a killed process leaves behind."""
        if self.file.exists():
            content = self.file.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                with self.file.open("r+b") as file:
                    file.truncate(whole)
