"""Read rows of TSV, CSV, JSON lines and Parquet files, with their positions for messages.

TSV, CSV and JSON lines may be compressed with gzip.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from xlt_ray.config.task import Format, TaskSpec
from xlt_ray.errors import UserError


@dataclass(frozen=True)
class Rows:
    """The requested columns of a file.

    Attributes:
        path: The file.
        unit: What ``numbers`` count: ``line`` or ``row``.
        numbers: Where each row stands in the file, from 1.
        columns: The values of each requested column.
    """

    path: Path
    unit: str
    numbers: Sequence[int]
    columns: dict[str, list[Any]]

    def where(self, index: int) -> str:
        """Return file and line of a row, for messages."""
        return f"{self.path}, {self.unit} {self.numbers[index]}"


def read_rows(path: Path, task: TaskSpec) -> Rows:
    """Read the text and label columns of a file.

    Raises:
        UserError: If the format is unknown, a column is missing or a line is malformed.
    """
    files = task.data.files
    kind = (files.format if files else None) or _ending(path).removeprefix(".")
    names = (*task.text_columns, task.label_column)
    if kind in ("tsv", "csv"):
        # On the hub, a TSV file is a CSV file with tabs: `datasets` reads its quotes as syntax.
        quoted = kind == "csv" or files is None
        lines = _csv(path, "," if kind == "csv" else "\t") if quoted else _tsv(path)
        columns = files.columns if files else None
        return _from_lines(path, lines, columns, names)
    if kind in ("jsonl", "json"):
        return _jsonl(path, names)
    if kind == "parquet":
        return _parquet(path, names)
    raise UserError(
        f"{path}: cannot tell the format from the ending '{_ending(path)}'; "
        f"set data.files.format to one of {', '.join(get_args(Format))}"
    )


def _ending(path: Path) -> str:
    """Return the name's ending; that of a gzip file is the one before `.gz`."""
    return Path(path.stem).suffix if path.suffix == ".gz" else path.suffix


def _text(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path}: not a readable gzip file ({error})") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x} at offset "
            f"{error.start}); save the file as UTF-8"
        ) from None


def _tsv(path: Path) -> Iterator[tuple[int, list[str]]]:
    lines = _text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        yield number, line.removesuffix("\r").split("\t")


def _csv(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from None


def _from_lines(
    path: Path,
    lines: Iterator[tuple[int, list[str]]],
    columns: Sequence[str] | None,
    names: Sequence[str],
) -> Rows:
    """Pick the named columns; without given ``columns`` the first line names them."""
    if columns is None:
        _, columns = next(lines, (0, []))
    _require(path, names, columns)
    indices = [columns.index(name) for name in names]
    numbers: list[int] = []
    values: list[list[str]] = [[] for _ in names]
    for number, cells in lines:
        if len(cells) != len(columns):
            raise UserError(
                f"{path}, line {number}: expected {len(columns)} columns "
                f"({', '.join(columns)}), found {len(cells)}{_width_hint(cells, columns)}"
            )
        numbers.append(number)
        for column, index in zip(values, indices, strict=True):
            column.append(cells[index])
    return Rows(path, "line", numbers, dict(zip(names, values, strict=True)))


def _width_hint(cells: Sequence[str], columns: Sequence[str]) -> str:
    if len(cells) > len(columns):
        return "; is there a separator inside a text?"
    if len(cells) == len(columns) - 1:
        return "; XTREME publishes its test files without labels, they must be put back"
    return ""


def _jsonl(path: Path, names: Sequence[str]) -> Rows:
    numbers: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise UserError(
                f"{path}, line {number}: expected a JSON object with {', '.join(names)}"
            )
        _require(f"{path}, line {number}", names, list(row))
        numbers.append(number)
        for name in names:
            columns[name].append(row[name])
    return Rows(path, "line", numbers, columns)


def _parquet(path: Path, names: Sequence[str]) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        _require(path, names, file.schema_arrow.names)
        columns = file.read(columns=list(names)).to_pydict()
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path}: not a readable Parquet file ({error})") from None
    return Rows(path, "row", range(1, file.metadata.num_rows + 1), columns)


def _require(where: Path | str, names: Sequence[str], found: Sequence[str]) -> None:
    for name in names:
        if name not in found:
            raise UserError(
                f"{where}: no column '{name}'; columns found: {', '.join(found) or 'none'}"
            )
