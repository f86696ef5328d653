"""Find, check and load the data files of a task, on disk or on the Hugging Face hub."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from xlt_ray.config.task import LANGUAGE, SPLITS, FileSource, HubSource, Split, TaskSpec
from xlt_ray.data.hub import hub_folder
from xlt_ray.data.labelled import Examples, read_examples
from xlt_ray.errors import UserError, nearest, unreadable

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


def read_splits(task: TaskSpec) -> Iterator[tuple[tuple[Split, str], Examples]]:
    """Read all splits in all languages, one after the other, which finds every mistake in them.

    Yields:
        Split and language, and their examples.

    Raises:
        UserError: As :func:`find_files` and :func:`xlt_ray.data.labelled.read_examples`.
    """
    for key, paths in find_files(task).items():
        yield key, read_examples(task, paths)


def load_split(task: TaskSpec, split: Split, language: str) -> Examples:
    """Read one language of one split.

    Args:
        task: The task.
        split: Which split; of ``train`` only the source language can be loaded.
        language: One of the task's languages.

    Returns:
        The examples, in the order of the file.

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
    return read_examples(task, _find(task, [(split, language)])[split, language])


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
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise unreadable(path, error) from None
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
        config = hub.config_of(language)
        if config not in configs:
            raise UserError(
                f"data set '{hub.path}': no configuration '{config}' (language '{language}')"
                f"{nearest(config, configs)}"
            )
        name = getattr(hub.splits, split)
        if name not in configs[config]:
            raise UserError(
                f"data set '{hub.path}', configuration '{config}': no split '{name}'"
                f"{nearest(name, configs[config])}"
            )
        patterns[split, language] = list(configs[config][name])
        for pattern in patterns[split, language]:
            # Anyone can write a card; it must not name files elsewhere on this machine.
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
