"""Fingerprints of what trials read: data, synonyms and model; the ledger keeps them.

A resumed search compares them, because trials on different data do not compare.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from xlt_ray.config.task import TaskSpec
from xlt_ray.data.sources import find_files
from xlt_ray.encoders.loading import EncoderInfo, hub_commit
from xlt_ray.encoders.packaged import is_packaged
from xlt_ray.method.synonyms import Synonyms
from xlt_ray.search.changes import differences
from xlt_ray.search.ledger import Ledger

TASK = "the task file"
SYNONYMS = "the synonym list"
WEIGHTS = "the model's weights"
CONFIGURATION = "the model's configuration or tokenizer"

PLACES = ("data_dir", "task", "model", "method.view.synonyms")
"""Keys that say where the inputs are."""

_WEIGHT_SUFFIXES = (".safetensors", ".bin")
_CONFIGURATION_SUFFIXES = (".json", ".txt", ".model")


def fingerprints(
    task: TaskSpec, synonyms: Synonyms, model: str, encoder: EncoderInfo
) -> dict[str, str]:
    """Return fingerprints of all that the trials of a search read.

    Args:
        task: The task.
        synonyms: The dictionary.
        model: The spec's model.
        encoder: The same model, checked.

    Returns:
        Digests by name, as messages show them: each data file (`train-en.tsv (train, en)`), the
        task file, the synonym list, and the model's files or, from a hub, its commit.

    Raises:
        UserError: If a data file is missing.
    """
    found = {
        _name(path, split, language): _digest([path])
        for (split, language), paths in find_files(task).items()
        for path in paths
    }
    # Paths may differ between machines; the files' content is above.
    reading = task.model_dump(
        mode="json", exclude={"description", "data", "target_languages"}, exclude_defaults=True
    )
    if task.data.files is not None:
        reading |= task.data.files.model_dump(mode="json", include={"format", "header", "columns"})
    found[TASK] = _of_values(reading)
    found[SYNONYMS] = _of_values(synonyms)
    return found | _of_model(model, encoder.source)


def equal_files(task: TaskSpec) -> list[list[str]]:
    """Return the names of data files that have the same content, as fingerprints name them."""
    files = {
        _name(path, split, language): path
        for (split, language), paths in find_files(task).items()
        for path in paths
    }
    # Only files of the same size are read.
    sizes = Counter(path.stat().st_size for path in files.values())
    equal: dict[str, list[str]] = {}
    for name, path in files.items():
        if sizes[path.stat().st_size] > 1:
            equal.setdefault(_content(path), []).append(name)
    return [names for names in equal.values() if len(names) > 1]


def warning(ledger: Path) -> str:
    """Return a sentence on a search whose inputs or keys changed between its trials.

    Args:
        ledger: The search's ledger; it may be missing.

    Returns:
        The sentence; an empty text if nothing changed.
    """
    if not ledger.is_file():
        return ""
    found = Ledger(ledger)
    keys = [key for pair in found.changed_searches for key in differences(*pair)]
    # What is read counts by its content.
    keys = [key for key in dict.fromkeys(keys) if key not in PLACES]
    changes = []
    if found.changed_inputs:
        changes.append(f"on different data: {', '.join(found.changed_inputs)}")
    if keys:
        changes.append(f"with different keys: {', '.join(keys)}")
    if not changes:
        return ""
    return (
        f"trials were trained {' and '.join(changes)} changed between them, so they do not compare"
    )


def _of_model(model: str, source: str) -> dict[str, str]:
    folder = Path(source)
    if not folder.is_dir():
        commit = hub_commit(source)
        return {} if commit is None else {WEIGHTS: commit}
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = {WEIGHTS: _digest(path for path in files if path.suffix in _WEIGHT_SUFFIXES)}
    # A packaged encoder's configuration is written by the installed version of transformers.
    if not is_packaged(model):
        found[CONFIGURATION] = _digest(
            path for path in files if path.suffix in _CONFIGURATION_SUFFIXES
        )
    return found


def _digest(paths: Iterable[Path]) -> str:
    """Return a digest of the names and the content of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {_content(path)}\n".encode())
    return digest.hexdigest()


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(path: Path, split: str, language: str) -> str:
    return f"{path.name} ({split}, {language})"


def _of_values(values: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
