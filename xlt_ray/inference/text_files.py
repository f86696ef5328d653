"""Read files of texts row by row, and write them with added columns; `predict` uses it."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TextIO, cast

from xlt_ray.data.rows import (
    check_header,
    check_line_end,
    is_gzip,
    parse_json,
    without_blank_end,
)
from xlt_ray.errors import UserError, brief, nearest
from xlt_ray.files import finite

FORMATS = (".tsv", ".csv", ".jsonl", ".ndjson")
"""Endings of files of texts, in any case; `.gz` may follow."""

Row = dict[str, Any]
"""Values by column, in the file's order."""

_LONE_RETURN = re.compile(r"(?<=\r)(?!\r?\n|\Z)")
"""End of a line that a carriage return alone ends, in a line as the operating system sees it."""


class JsonRow(Row):
    """A row of JSON lines.

    Attributes:
        line: The line itself, because Python rounds numbers such as 0.12345678901234567890.
    """

    line: str


class TextFile:
    """A file of texts: TSV without quoting, CSV or JSON lines, depending on its ending; with a
    further `.gz`, compressed with gzip.

    Args:
        path: The file.
        header: Column names of a TSV or CSV file without a header line.

    Raises:
        UserError: If there is no such file, or its ending is unknown.
    """

    def __init__(self, path: Path, header: Sequence[str] | None = None) -> None:
        if not path.is_file():
            raise UserError(f"--input {path}: there is no such file")
        self.path = path
        self.kind = _kind(path)
        if self.kind not in FORMATS:
            raise UserError(
                f"--input {path}: cannot tell the format from the ending '{path.suffix}'; "
                f"expected one of {', '.join(FORMATS)}"
            )
        if header is not None and self.kind == ".jsonl":
            raise UserError(f"--columns: the lines of {path} name their columns themselves")
        self.header = header

    def check_output(self, output: Path) -> None:
        """Check that an output file of the same format can be written.

        Raises:
            UserError: If its ending differs, or its folder is missing or not writable.
        """
        if _kind(output) != self.kind:
            raise UserError(f"--output {output}: it must end in {self.kind}, as the input does")
        check_place(output)

    def check_added(self, names: Sequence[str]) -> None:
        """Check that the format can hold the columns and classes that are added to the file.

        Raises:
            UserError: If a name has a tab or a line break and the file is TSV.
        """
        for name in names:
            if self.kind == ".tsv" and re.search("[\t\r\n]", name):
                raise UserError(
                    f"--output: the model's class {brief(name)!r} has a tab or a line break, which "
                    "TSV cannot hold; give the texts as .csv or .jsonl"
                )

    def rows(self, on_progress: Callable[[int], None]) -> Iterator[tuple[str, Row]]:
        """Read the file row by row, without holding it in memory.

        Args:
            on_progress: Called after each row with the number of bytes read so far.

        Yields:
            The place of each row, such as `texts.tsv, line 3`, and its values.

        Raises:
            UserError: If a line is not UTF-8, is not valid CSV or JSON, or differs from the first
                in its number of columns; or if a gzip file is damaged.
        """
        with self.path.open("rb") as file, contextlib.ExitStack() as opened:
            content: IO[bytes] = file
            if is_gzip(self.path):
                content = cast(IO[bytes], opened.enter_context(gzip.open(file)))
            read = self._json_rows(content) if self.kind == ".jsonl" else self._cell_rows(content)
            for row in read:
                yield row
                on_progress(file.tell())

    def _lines(self, file: IO[bytes]) -> Iterator[str]:
        for number, line in enumerate(self._bytes(file), 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{self.path}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x}); "
                    "save the file as UTF-8"
                ) from None

    def _bytes(self, file: IO[bytes]) -> Iterator[bytes]:
        try:
            yield from file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{self.path}: not a readable gzip file ({error})") from None

    def _json_rows(self, file: IO[bytes]) -> Iterator[tuple[str, Row]]:
        for number, line in enumerate(self._lines(file), 1):
            if not line.strip():
                continue
            place = f"{self.path}, line {number}"
            row = parse_json(line, place)
            if not isinstance(row, dict):
                raise UserError(f"{place}: expected a JSON object; write one per line")
            kept = JsonRow(row)
            kept.line = line.strip()
            yield place, kept

    def _cell_rows(self, file: IO[bytes]) -> Iterator[tuple[str, Row]]:
        cells = self._csv(file) if self.kind == ".csv" else self._tsv(file)
        names = list(self.header) if self.header is not None else next(cells, (0, []))[1]
        check_header(self.path, names)
        if len(set(names)) < len(names):
            raise UserError(f"{self.path}: two of its columns have the same name")
        # In a file of one column, a blank line is an empty text.
        for number, values in cells if len(names) == 1 else without_blank_end(cells):
            place = f"{self.path}, line {number}"
            if len(values) != len(names):
                raise UserError(
                    f"{place}: expected {len(names)} columns ({', '.join(names)}), "
                    f"found {len(values)}"
                )
            yield place, dict(zip(names, values, strict=True))

    def _tsv(self, file: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
        for number, line in enumerate(self._lines(file), 1):
            if number == 1:
                check_line_end(self.path, line)
            yield number, line.removesuffix("\n").removesuffix("\r").split("\t")

    def _csv(self, file: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
        # The default limit of a cell is 128 KiB.
        csv.field_size_limit(2**30)
        lines = (part for line in self._lines(file) for part in _LONE_RETURN.split(line))
        reader = csv.reader(lines, strict=True)
        try:
            for cells in reader:
                # A blank line has no cells here, and one empty cell in TSV.
                yield reader.line_num, cells or [""]
        except csv.Error as error:
            raise UserError(
                f"{self.path}, line {reader.line_num}: not valid CSV ({error})"
            ) from None


def _kind(path: Path) -> str:
    """Return the format of a file as the ending in lower case; `.ndjson` is `.jsonl`."""
    ending = (Path(path.stem) if is_gzip(path) else path).suffix.lower()
    return ".jsonl" if ending == ".ndjson" else ending


def check_place(output: Path) -> None:
    """Check that the file of `--output` can be written.

    Raises:
        UserError: If it is a folder, or its folder is missing or not writable.
    """
    if output.is_dir():
        raise UserError(f"--output {output}: it is a folder")
    if not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.absolute().parent}")
    if not os.access(output.absolute().parent, os.W_OK):
        raise UserError(f"--output {output}: its folder cannot be written to")


@contextlib.contextmanager
def row_writer(output: Path) -> Iterator[RowWriter]:
    """Write rows to a file that appears at the end of the block, complete or not at all.

    Args:
        output: A file that ends in one of :data:`FORMATS`; an existing one is replaced.

    Yields:
        The writer. The first row determines the columns of TSV and CSV.
    """
    unfinished = output.with_name(f".{output.name}.new")
    try:
        with unfinished.open("wb") as raw, contextlib.ExitStack() as stack:
            opened: IO[bytes] = raw
            if is_gzip(output):
                opened = cast(IO[bytes], stack.enter_context(gzip.open(raw, "wb")))
            text = io.TextIOWrapper(opened, encoding="utf-8", newline="")
            yield RowWriter(stack.enter_context(text), _kind(output))
        os.replace(unfinished, output)
    finally:
        unfinished.unlink(missing_ok=True)


class RowWriter:
    """Writes rows to an open file, in the format of an ending."""

    def __init__(self, file: TextIO, kind: str) -> None:
        self._file, self._kind = file, kind
        self._begun = False

    def __call__(self, row: Row, added: Row | None = None) -> None:
        """Write a row and the columns added to it; a line of JSON stays as it was read."""
        added = added or {}
        if self._kind == ".jsonl":
            if added and isinstance(row, JsonRow) and _is_json(row):
                line = f"{row.line.removesuffix('}').rstrip()}, {_json_line(added)[1:]}"
            else:
                line = _json_line(row | added)
            self._file.write(line)
            return
        row = row | added
        if not self._begun:
            self._cells(list(row))
            self._begun = True
        self._cells([str(value) for value in row.values()])

    def _cells(self, cells: Sequence[str]) -> None:
        if self._kind == ".csv":
            # The csv module leaves a carriage return unquoted, and its reader then ends the row.
            writer = csv.writer(self._file, lineterminator="\n")
            if any("\r" in cell for cell in cells):
                writer = csv.writer(self._file, lineterminator="\n", quoting=csv.QUOTE_ALL)
            writer.writerow(cells)
        else:
            self._file.write("\t".join(cells) + "\n")


def _is_json(row: JsonRow) -> bool:
    """Tell whether other readers of JSON take the line: it has no NaN or Infinity."""
    return not any(word in row.line for word in ("NaN", "Infinity"))


def _json_line(row: Row) -> str:
    row = finite(row)
    line = json.dumps(row, ensure_ascii=False)
    # JSON may contain a lone surrogate, which UTF-8 cannot encode.
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = json.dumps(row)
    return line + "\n"


def require(place: str, names: Sequence[str], row: Row) -> None:
    """Check that a row has texts in some columns.

    Args:
        place: The row's place, for the message.
        names: Names of the columns.
        row: The row.

    Raises:
        UserError: If a column is missing or its value is not a text.
    """
    for name in names:
        if name not in row:
            raise UserError(
                f"{place}: no column '{name}'{nearest(name, row)}; --text names the columns"
            )
        if not isinstance(row[name], str):
            raise UserError(f"{place}: '{name}' is not a text")
