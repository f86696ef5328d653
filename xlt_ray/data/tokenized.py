"""A task's data as token ids: built once, cached on disk, memory-mapped by every trial."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from xlt_ray.config.task import Split, TaskSpec
from xlt_ray.data.card import card_classes
from xlt_ray.data.hub import hub_folder
from xlt_ray.data.labelled import read_examples
from xlt_ray.data.sources import find_files
from xlt_ray.encoders.loading import load_tokenizer
from xlt_ray.errors import UserError
from xlt_ray.files import new_folder

if TYPE_CHECKING:
    from datasets import Dataset

_DESCRIPTION = "task.json"
# Part of the fingerprint; raise it when what is stored changes for the same data.
_LAYOUT = 3
# Below this a second process costs more than it saves.
_ROWS_PER_PROCESS = 50_000
_TOKENIZER_FILES = (
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
)


@dataclass(frozen=True)
class TokenizedTask:
    """The token ids of a task's splits, on disk.

    Attributes:
        folder: Where they are.
        task: Name of the task.
        languages: Codes of the evaluated languages, the source language first.
        source_language: Code of the language that is trained on.
    """

    folder: Path
    task: str
    languages: tuple[str, ...]
    source_language: str

    @classmethod
    def open(cls, folder: Path) -> TokenizedTask:
        """Open what :func:`tokenize_task` made, without reading any text again.

        Args:
            folder: The ``folder`` of the task that :func:`tokenize_task` returned.
        """
        described = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        return cls(
            folder, described["task"], tuple(described["languages"]), described["source_language"]
        )

    def train(self) -> Dataset:
        """Return the training examples of the source language, memory-mapped.

        Columns: ``row`` (position in the split), ``text_a``, ``text_b`` (pairs only), ``label``
        (class id), ``input_ids`` (special tokens included), ``token_type_ids`` (only where the
        tokenizer tells the two texts apart by them) and ``length`` (number of token ids).
        """
        return self._load("train")

    def evaluation(self, split: Literal["dev", "test"]) -> Dataset:
        """Return the examples of a split in all languages, one language after the other.

        Columns: ``language`` (position in :attr:`languages`), ``row`` (position within the
        language's split: the same pair in every language where the data is parallel), ``label``,
        ``input_ids``, ``token_type_ids`` (as in :meth:`train`) and ``length``; in dev also the
        texts; memory-mapped.
        """
        return self._load(split)

    def _load(self, split: Split) -> Dataset:
        from datasets import load_from_disk

        return load_from_disk(str(self.folder / split))


def tokenize_task(
    task: TaskSpec,
    tokenizer_source: str,
    max_length: int,
    cache_dir: Path,
    *,
    train_limit: int | None = None,
    dev_limit: int | None = None,
    test_limit: int | None = None,
) -> TokenizedTask:
    """Tokenise a task, or find it tokenised in the cache.

    The cache is keyed by the content of the data and of the tokenizer's files and by all
    arguments but ``cache_dir``. A folder appears in it complete or not at all, so that several
    processes may prepare the same task at once.

    Args:
        task: The task.
        tokenizer_source: Folder or hub name that ``AutoTokenizer.from_pretrained`` accepts.
        max_length: Most token ids of an example, special tokens included; of a pair the longer
            text is cut first.
        cache_dir: Where tokenised tasks are kept; created if absent.
        train_limit: Number of training rows, taken from the start; None: all.
        dev_limit: Number of dev rows of each language.
        test_limit: Number of test rows of each language.

    Returns:
        The tokenised task.

    Raises:
        UserError: If the data is wrong (see :func:`xlt_ray.data.labelled.read_examples`), the
            tokenizer cannot be loaded, or ``max_length`` does not suit it.
    """
    files = find_files(task)
    tokenizer_folder = _tokenizer_folder(tokenizer_source)
    limits: dict[Split, int | None] = {
        "train": train_limit,
        "dev": dev_limit,
        "test": test_limit,
    }
    settings = {
        "layout": _LAYOUT,
        "transformers": version("transformers"),
        "tokenizers": version("tokenizers"),
        "task": _reading(task),
        "classes": _card_classes(task, files),
        "max_length": max_length,
        "limits": limits,
    }
    fingerprint = _fingerprint(settings, tokenizer_folder, files)
    folder = cache_dir / f"{task.name}-{fingerprint}"
    if not folder.is_dir():
        tokenizer = _load_tokenizer(tokenizer_source, tokenizer_folder, max_length, task.is_pair)
        with new_folder(folder) as building:
            _build(task, tokenizer, max_length, limits, files, building)
    return TokenizedTask.open(folder)


def _build(
    task: TaskSpec,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    limits: Mapping[Split, int | None],
    files: Mapping[tuple[Split, str], list[Path]],
    folder: Path,
) -> None:
    from datasets import concatenate_datasets, disable_progress_bars

    if not sys.stderr.isatty():
        # In a log, each step of a bar would be a line.
        disable_progress_bars()
    parts: dict[Split, list[Dataset]] = {split: [] for split in limits}
    for (split, language), paths in files.items():
        part = read_examples(task, paths).first(limits[split]).dataset()
        part = part.add_column("row", list(range(len(part))))
        if split != "train":
            index = task.languages.index(language)
            part = part.add_column("language", [index] * len(part))
        parts[split].append(part)
    for split, datasets in parts.items():
        texts = concatenate_datasets(datasets)
        tokens = _tokenize(texts, tokenizer, max_length, split)
        tokens.save_to_disk(folder / split, num_shards=1)
    described = {
        "task": task.name,
        "languages": task.languages,
        "source_language": task.source_language,
    }
    (folder / _DESCRIPTION).write_text(json.dumps(described), encoding="utf-8")


def _tokenize(
    texts: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, split: Split
) -> Dataset:
    from datasets import Features, List, Value

    text_columns = [name for name in ("text_a", "text_b") if name in texts.column_names]
    id_columns = [
        name for name in ("input_ids", "token_type_ids") if name in tokenizer.model_input_names
    ]
    kept = [name for name in texts.column_names if split != "test" or name not in text_columns]

    def tokenize(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        tokens = tokenizer(
            *(batch[name] for name in text_columns),
            truncation="longest_first",
            max_length=max_length,
            return_attention_mask=False,
        )
        lengths = [len(ids) for ids in tokens["input_ids"]]
        return {**{name: tokens[name] for name in id_columns}, "length": lengths}

    features = Features(
        {
            **{name: texts.features[name] for name in kept},
            **{name: List(Value("int32")) for name in id_columns},
            "length": Value("int32"),
        }
    )
    processes = min(os.cpu_count() or 1, len(texts) // _ROWS_PER_PROCESS)
    return texts.map(
        tokenize,
        batched=True,
        remove_columns=[name for name in texts.column_names if name not in kept],
        features=features,
        num_proc=processes if processes > 1 else None,
        # `_build` stores the result; a second copy in the library's cache helps no one.
        new_fingerprint=f"xlt-ray-{split}",
        load_from_cache_file=False,
        desc=f"Tokenising {split}",
    )


def _tokenizer_folder(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    remedy = "give a folder, or fill the cache ($HF_HOME) on a machine that reaches the hub"
    return hub_folder(source, "model", _TOKENIZER_FILES, None, remedy)


def _load_tokenizer(
    source: str, folder: Path, max_length: int, is_pair: bool
) -> PreTrainedTokenizerBase:
    try:
        tokenizer = load_tokenizer(source if Path(source).is_dir() else str(folder))
    except (OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise UserError(f"model '{source}': its tokenizer cannot be loaded ({reason})") from None
    special = tokenizer.num_special_tokens_to_add(pair=is_pair)
    texts = 2 if is_pair else 1
    if not special + texts <= max_length <= tokenizer.model_max_length:
        raise UserError(
            f"max_length {max_length} does not suit model '{source}': it must be "
            f">= {special + texts} and <= {tokenizer.model_max_length}"
        )
    return tokenizer


def _reading(task: TaskSpec) -> dict[str, Any]:
    """Return the task settings that determine how files are read, without paths."""
    reading = task.model_dump(mode="json", exclude={"description", "data"})
    if task.data.files is not None:
        reading |= task.data.files.model_dump(mode="json", include={"format", "header", "columns"})
    return reading


def _card_classes(
    task: TaskSpec, files: Mapping[tuple[Split, str], list[Path]]
) -> tuple[str, ...] | None:
    """Return the class names in the card of the hub's data set, which are not in the files."""
    if task.data.hub is None:
        return None
    return card_classes(next(path for paths in files.values() for path in paths), task)


def _fingerprint(
    settings: Mapping[str, Any],
    tokenizer_folder: Path,
    data: Mapping[tuple[Split, str], Iterable[Path]],
) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    tokenizer_files = {
        path
        for pattern in _TOKENIZER_FILES
        for path in tokenizer_folder.glob(pattern)
        if path.is_file()
    }
    named = [(path.name, path) for path in sorted(tokenizer_files)]
    named += [
        (f"{split} {language}", path) for (split, language), paths in data.items() for path in paths
    ]
    for name, path in named:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"\n{name} {content}".encode())
    return digest.hexdigest()[:16]


def token_rows(data: Dataset, name: str) -> list[np.ndarray]:
    """Read a column of integer lists without going through Python integers."""
    rows: list[np.ndarray] = []
    for chunk in data.with_format("arrow")[:][name].chunks:
        ends: Any = np.cumsum(chunk.value_lengths().to_numpy())
        rows += np.split(chunk.flatten().to_numpy().astype(np.int64), ends[:-1])
    return rows
