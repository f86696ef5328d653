"""Reading and checking a task's labelled texts."""

from __future__ import annotations

import csv
import glob
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from xlt_ray.config.task import LANGUAGE, SPLITS, FileSource, Format, HubSource, Split, TaskSpec
from xlt_ray.data.hub import hub_folder
from xlt_ray.errors import UserError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

_NO_HUB = (
    "give a folder of TSV files with --data-dir, "
    "or fill the cache ($HF_HOME) on a machine that reaches the hub"
)


def find_files(
    task: TaskSpec, splits: Iterable[Split] = SPLITS
) -> dict[tuple[Split, str], list[Path]]:
    """Find the files of some splits, fetching them from the hub where they come from there.

    Args:
        task: The task.
        splits: The splits. Of ``train`` there is the source language only.

    Returns:
        The files of each (split, language), splits in the order given and languages in the
        task's.

    Raises:
        UserError: If a file is missing, or the hub's data set cannot be fetched.
    """
    wanted = [
        (split, language)
        for split in splits
        for language in ((task.source_language,) if split == "train" else task.languages)
    ]
    return _find(task, wanted)


def check_data(task: TaskSpec, splits: Iterable[Split] = SPLITS) -> dict[tuple[Split, str], int]:
    """Read some splits in all their languages, to meet every mistake in them before a search.

    Args:
        task: The task.
        splits: The splits.

    Returns:
        The number of rows of each (split, language).

    Raises:
        UserError: As :func:`find_files` and :func:`load_split`.
    """
    files = find_files(task, splits)
    return {key: len(read_examples(task, paths).labels) for key, paths in files.items()}


def load_split(task: TaskSpec, split: Split, language: str) -> Dataset:
    """Load one language of one split.

    Args:
        task: The task.
        split: Which split; of ``train`` only the source language can be loaded.
        language: One of the task's languages.

    Returns:
        A data set with the columns ``text_a``, ``text_b`` (pairs only) and ``label`` (class id),
        rows in the order of the file.

    Raises:
        UserError: If the language is not the task's, or not the source language for ``train``; if
            a file is missing; if a row is wrong (number of columns, label, an empty text,
            not UTF-8); or if there are no rows.
    """
    if language not in task.languages:
        raise UserError(
            f"task {task.name}: no language '{language}'{nearest(language, task.languages)}"
        )
    if split == "train" and language != task.source_language:
        raise UserError(
            f"task {task.name}: training data is read in {task.source_language} only, "
            f"not in '{language}': a zero-shot target has no labelled training data"
        )
    return read_examples(task, _find(task, [(split, language)])[split, language]).dataset()


@dataclass(frozen=True)
class Examples:
    """Checked examples.

    Attributes:
        texts: The texts of each text column, in the task's order.
        labels: Class ids.
    """

    texts: tuple[list[str], ...]
    labels: list[int]

    def first(self, limit: int | None) -> Examples:
        """Return the first ``limit`` of them; None: all."""
        return Examples(tuple(column[:limit] for column in self.texts), self.labels[:limit])

    def dataset(self) -> Dataset:
        """Return them as columns ``text_a``, ``text_b`` (pairs only) and ``label``."""
        from datasets import Dataset

        names = ("text_a", "text_b")[: len(self.texts)]
        return Dataset.from_dict(
            {**dict(zip(names, self.texts, strict=True)), "label": self.labels}
        )


def read_examples(task: TaskSpec, files: Sequence[Path]) -> Examples:
    """Read and check the examples of some files, one after the other.

    Args:
        task: The task.
        files: Files of one split and language, as :func:`find_files` returns them.

    Raises:
        UserError: If a row is wrong or there are none.
    """
    ids = _class_ids(task)
    texts: tuple[list[str], ...] = tuple([] for _ in task.text_columns)
    labels: list[int] = []
    for path in files:
        rows = _read(path, task)
        for column, name in zip(texts, task.text_columns, strict=True):
            values = rows.columns[name]
            for index, value in enumerate(values):
                if not isinstance(value, str) or not value or value.isspace():
                    what = "is empty" if value is None or isinstance(value, str) else "is not text"
                    raise UserError(
                        f"{rows.where(index)}: the text in column '{name}' {what}; "
                        "fill it in or remove the row (in every language)"
                    )
            column.extend(cast(list[str], values))
        for index, value in enumerate(rows.columns[task.label_column]):
            label = ids.get(value if isinstance(value, str) else str(value))
            if label is None:
                raise UserError(f"{rows.where(index)}: {_unknown_label(str(value), task)}")
            labels.append(label)
    if not labels:
        raise UserError(f"{', '.join(map(str, files))}: there are no rows")
    return Examples(texts, labels)


def _class_ids(task: TaskSpec) -> dict[str, int]:
    """What may stand in the label column, and the class id it means."""
    ids = {name: index for index, name in enumerate(task.labels)}
    # Where a name is itself a number, an id would be ambiguous.
    if not any(name.isdigit() for name in task.labels):
        ids |= {str(index): index for index in range(len(task.labels))}
    return ids | {raw: ids[name] for raw, name in task.label_values.items()}


def _unknown_label(label: str, task: TaskSpec) -> str:
    hint = nearest(label, task.labels)
    valid = f"; valid: {', '.join(task.labels)}" if "did you mean" in hint else hint
    suggestion = hint if "did you mean" in hint else ""
    missing = ", which data sets put where a label is missing" if label == "-1" else ""
    return f"unknown label '{label}'{missing}{suggestion}{valid}"


# Finding files


def _find(
    task: TaskSpec, wanted: Sequence[tuple[Split, str]]
) -> dict[tuple[Split, str], list[Path]]:
    if task.data.hub is not None:
        return _find_on_hub(task.data.hub, wanted)
    assert task.data.files is not None
    return {
        (split, language): [_find_on_disk(task.data.files, split, language)]
        for split, language in wanted
    }


def _find_on_disk(files: FileSource, split: Split, language: str) -> Path:
    pattern: str = getattr(files, split)
    path = Path(pattern.replace(LANGUAGE, language))
    if path.is_file():
        return path
    if LANGUAGE not in pattern:
        raise UserError(f"{path}: there is no such file ({split})")
    slot = re.escape(LANGUAGE)
    name = re.compile(
        re.escape(pattern).replace(slot, "(?P<language>[^/]+)", 1).replace(slot, "(?P=language)")
    )
    candidates = glob.glob("*".join(glob.escape(part) for part in pattern.split(LANGUAGE)))
    found = sorted(match["language"] for file in candidates if (match := name.fullmatch(file)))
    raise UserError(
        f"{path}: there is no such file ({split}, language '{language}'); "
        f"languages found there: {', '.join(found) or 'none'}"
    )


def _find_on_hub(
    hub: HubSource, wanted: Sequence[tuple[Split, str]]
) -> dict[tuple[Split, str], list[Path]]:
    """Fetch exactly the files that the data set's card names for the wanted splits.

    ``datasets.load_dataset`` would fetch every split of a configuration, and with it the
    machine-translated training data of the target languages.
    """
    from datasets.data_files import sanitize_patterns
    from huggingface_hub import DatasetCard

    def fetch(patterns: Sequence[str]) -> Path:
        return hub_folder(hub.path, "dataset", patterns, hub.revision, _NO_HUB)

    card = fetch(["README.md"]) / "README.md"
    if not card.is_file():
        raise UserError(f"data set '{hub.path}': has no card (README.md) that names its files")
    configs = {
        one["config_name"]: sanitize_patterns(one["data_files"])
        for one in DatasetCard.load(card).data.to_dict().get("configs", [])
        if "data_files" in one
    }
    patterns: dict[tuple[Split, str], list[str]] = {}
    for split, language in wanted:
        config = hub.config.replace(LANGUAGE, language)
        if config not in configs:
            raise UserError(
                f"data set '{hub.path}': no configuration '{config}'{nearest(config, configs)}"
            )
        name = getattr(hub.splits, split)
        if name not in configs[config]:
            raise UserError(
                f"data set '{hub.path}', configuration '{config}': no split '{name}'"
                f"{nearest(name, configs[config])}"
            )
        patterns[split, language] = list(configs[config][name])
        for pattern in patterns[split, language]:
            # Anyone can write a card, and what it names is read from this machine's disk.
            if pattern.startswith("/") or ".." in pattern.split("/"):
                raise UserError(
                    f"data set '{hub.path}': its card names {pattern!r}, which is outside of it"
                )
    folder = fetch(["README.md", *(pattern for each in patterns.values() for pattern in each)])
    found = {
        key: sorted(path for pattern in each for path in folder.glob(pattern))
        for key, each in patterns.items()
    }
    for (split, language), paths in found.items():
        if not paths:
            raise UserError(
                f"data set '{hub.path}': no file {', '.join(patterns[split, language])} "
                f"({split}, language '{language}'); {_NO_HUB}"
            )
    return found


# Reading files


@dataclass(frozen=True)
class _Rows:
    """The wanted columns of a file.

    Attributes:
        path: The file.
        unit: What ``numbers`` count: ``line`` or ``row``.
        numbers: Where each row stands in the file, from 1.
        columns: The values of each wanted column.
    """

    path: Path
    unit: str
    numbers: Sequence[int]
    columns: dict[str, list[Any]]

    def where(self, index: int) -> str:
        return f"{self.path}, {self.unit} {self.numbers[index]}"


def _read(path: Path, task: TaskSpec) -> _Rows:
    files = task.data.files
    kind = (files.format if files else None) or path.suffix.removeprefix(".")
    names = (*task.text_columns, task.label_column)
    if kind in ("tsv", "csv"):
        lines = _tsv(path) if kind == "tsv" else _csv(path)
        columns = files.columns if files else None
        return _from_lines(path, lines, columns, names)
    if kind == "jsonl":
        return _jsonl(path, names)
    if kind == "parquet":
        return _parquet(path, names)
    raise UserError(
        f"{path}: cannot tell the format from the ending '{path.suffix}'; "
        f"set data.files.format to one of {', '.join(get_args(Format))}"
    )


def _text(path: Path) -> str:
    data = path.read_bytes()
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


def _csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
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
) -> _Rows:
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
    return _Rows(path, "line", numbers, dict(zip(names, values, strict=True)))


def _width_hint(cells: Sequence[str], columns: Sequence[str]) -> str:
    if len(cells) > len(columns):
        return "; is there a separator inside a text?"
    if len(cells) == len(columns) - 1:
        return "; XTREME publishes its test files without labels, they must be put back"
    return ""


def _jsonl(path: Path, names: Sequence[str]) -> _Rows:
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
    return _Rows(path, "line", numbers, columns)


def _parquet(path: Path, names: Sequence[str]) -> _Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        _require(path, names, file.schema_arrow.names)
        columns = file.read(columns=list(names)).to_pydict()
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path}: not a readable Parquet file ({error})") from None
    return _Rows(path, "row", range(1, file.metadata.num_rows + 1), columns)


def _require(where: Path | str, names: Sequence[str], found: Sequence[str]) -> None:
    for name in names:
        if name not in found:
            raise UserError(
                f"{where}: no column '{name}'; columns found: {', '.join(found) or 'none'}"
            )
