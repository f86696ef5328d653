"""Read rows of TSV, CSV, JSON lines and Parquet files, with their positions for messages.

TSV, CSV and JSON lines may be compressed with gzip.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from xlt_ray.config.task import Format, TaskSpec
from xlt_ray.errors import UserError, in_one_line, unreadable
from xlt_ray.files import unique_keys

LONE_SURROGATE = (
    "has half a surrogate pair, which is no character (an escape such as \\ud83d without its other "
    "half); repair the text or remove the row"
)
"""Why a text with a lone surrogate is refused: no encoding or tokenizer takes it."""

_LONGEST_CELL = 2**30
"""Longest cell of a CSV file in characters; Python's own limit is 131,072."""


@dataclass(frozen=True)
class Rows:
    """The requested columns of a file.

    Attributes:
        path: The file.
        unit: What ``numbers`` count: ``line`` or ``row``.
        numbers: Where each row stands in the file, from 1.
        columns: The values of each requested column.
        classes: The file's own names of the label column's numbers; None: it has none.
    """

    path: Path
    unit: str
    numbers: Sequence[int]
    columns: dict[str, list[Any]]
    classes: tuple[str, ...] | None = None

    def where(self, index: int) -> str:
        """Return file and line of a row, for messages."""
        return f"{self.path}, {self.unit} {self.numbers[index]}"


def read_rows(path: Path, task: TaskSpec) -> Rows:
    """Read the text and label columns of a file.

    Raises:
        UserError: If the format is unknown, a column is missing or a line is malformed.
    """
    files = task.data.files
    kind = (files.format if files else None) or _ending(path).removeprefix(".").lower()
    names = (*task.text_columns, task.label_column)
    if kind in ("tsv", "csv"):
        # On the hub, a TSV file is a CSV file with tabs: `datasets` reads its quotes as syntax.
        quoted = kind == "csv" or files is None
        lines = _csv(path, "," if kind == "csv" else "\t") if quoted else _tsv(path)
        columns = files.columns if files else None
        return _from_lines(path, lines, columns, names)
    if kind in ("jsonl", "json", "ndjson"):
        return _jsonl(path, names)
    if kind == "parquet":
        return _parquet(path, names, task.label_column)
    raise UserError(
        f"{path}: cannot tell the format from the ending '{_ending(path)}'; "
        f"set data.files.format to one of {', '.join(get_args(Format))}"
    )


def _ending(path: Path) -> str:
    """Return the name's ending; that of a gzip file is the one before `.gz`."""
    return Path(path.stem).suffix if is_gzip(path) else path.suffix


def is_gzip(path: Path) -> bool:
    """Tell by its name whether a file is compressed with gzip."""
    return path.suffix.lower() == ".gz"


def has_lone_surrogate(text: str) -> bool:
    """Tell whether a text has half a surrogate pair, as a JSON escape can spell it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    if is_gzip(path):
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
        if len(lines) == 1:
            check_line_end(path, line)
        yield number, line.removesuffix("\r").split("\t")


def _csv(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_LONGEST_CELL)
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
        first = next(lines, None)
        if first is None:
            raise UserError(f"{path}: the file is empty; its first line must name the columns")
        columns = first[1]
        if _is_blank(columns):
            raise UserError(f"{path}: the first line is blank; it must name the columns")
        check_header(path, columns)
    _require(path, names, columns)
    _require_once(path, names, columns)
    indices = [columns.index(name) for name in names]
    numbers: list[int] = []
    values: list[list[str]] = [[] for _ in names]
    for number, cells in without_blank_end(lines):
        if len(cells) != len(columns):
            raise UserError(
                f"{path}, line {number}: expected {len(columns)} columns "
                f"({', '.join(columns)}), found {len(cells)}{_width_hint(cells, columns)}"
            )
        numbers.append(number)
        for column, index in zip(values, indices, strict=True):
            column.append(cells[index])
    return Rows(path, "line", numbers, dict(zip(names, values, strict=True)))


def without_blank_end(
    lines: Iterator[tuple[int, list[str]]],
) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines without the blank ones at the end; a blank line among rows is a mistake."""
    blank: list[tuple[int, list[str]]] = []
    for number, cells in lines:
        if _is_blank(cells):
            blank.append((number, cells))
            continue
        yield from blank
        blank.clear()
        yield number, cells


def check_header(path: Path, columns: Sequence[str]) -> None:
    """Refuse a header in UTF-16, which is UTF-8 too if all its letters are English."""
    if "\0" in "".join(columns):
        raise UserError(f"{path}: the file looks like UTF-16; save it as UTF-8")


def check_line_end(path: Path, line: str) -> None:
    """Refuse the only line of a TSV file if it is several lines with old Mac line ends."""
    if "\r" in line[:-1] and not line.endswith("\n"):
        raise UserError(f"{path}: its lines end in CR alone; save it with the line ends LF or CRLF")


def _is_blank(cells: Sequence[str]) -> bool:
    """Tell whether a line has nothing in it but spaces and DOS's end of file."""
    return len(cells) <= 1 and not "".join(cells).strip(" \x1a")


def _width_hint(cells: Sequence[str], columns: Sequence[str]) -> str:
    if len(cells) > len(columns):
        return "; is there a separator inside a text?"
    if len(cells) == len(columns) - 1 and "".join(cells).strip():
        return "; XTREME publishes its test files without labels, they must be put back"
    return ""


def _jsonl(path: Path, names: Sequence[str]) -> Rows:
    numbers: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise UserError(
                f"{path}, line {number}: expected a JSON object with {', '.join(names)}; "
                "write one object per line"
            )
        _require(f"{path}, line {number}", names, list(row))
        numbers.append(number)
        for name in names:
            columns[name].append(row[name])
    return Rows(path, "line", numbers, columns)


def parse_json(line: str, where: str) -> Any:
    """Parse a line of JSON.

    Args:
        line: The line.
        where: Its place, for the message.

    Raises:
        UserError: If it is no JSON, gives a key twice, is nested too deep, or has a number of
            thousands of digits.
    """
    try:
        return json.loads(line, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        reason = error.msg
        if error.pos >= len(line.rstrip()):
            raise UserError(
                f"{where}: not valid JSON (the line ends before its object does); "
                "write one object per line"
            ) from None
    except RecursionError:
        reason = "nested too deep"
    except ValueError as error:
        # A key that is given twice, or a number of more digits than Python reads.
        reason = str(error).partition(";")[0]
    raise UserError(f"{where}: not valid JSON ({reason})")


def _parquet(path: Path, names: Sequence[str], label_column: str) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        _require(path, names, file.schema_arrow.names)
        _require_once(path, names, file.schema_arrow.names)
        columns = file.read(columns=list(names)).to_pydict()
    except UnicodeDecodeError:
        raise UserError(f"{path}: a text in it is not UTF-8; save the texts as UTF-8") from None
    except (pyarrow.ArrowException, OSError) as error:
        # The operating system's errors have a number; Arrow's, such as of damaged data, have none.
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from None
        reason = in_one_line(error)
        raise UserError(f"{path}: not a readable Parquet file ({reason})") from None
    classes = _class_names(file.schema_arrow.metadata or {}, label_column)
    return Rows(path, "row", range(1, file.metadata.num_rows + 1), columns, classes)


def _class_names(metadata: Mapping[bytes, bytes], column: str) -> tuple[str, ...] | None:
    """Return the names of a `ClassLabel` column, which `datasets` writes into Parquet files."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _require(where: Path | str, names: Sequence[str], found: Sequence[str]) -> None:
    for name in names:
        if name not in found:
            raise UserError(
                f"{where}: no column '{name}'; columns found: {', '.join(found) or 'none'}"
            )


def _require_once(where: Path, names: Sequence[str], found: Sequence[str]) -> None:
    if twice := [name for name in names if list(found).count(name) > 1]:
        raise UserError(f"{where}: two columns are named '{twice[0]}'; rename or remove one")
