"""Data that all trials on one machine share: tokenised task, kept rows, trimmed encoder.

The driver and each worker call `prepare`; the first call does the work.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xlt_ray import __version__
from xlt_ray.config.spec import SearchSpec
from xlt_ray.config.task import TaskSpec, task_of
from xlt_ray.data.tokenized import TokenizedTask
from xlt_ray.encoders.loading import EncoderInfo, check_encoder, hub_commit
from xlt_ray.files import cache_folder, new_folder, write_whole

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedModel

    from xlt_ray.data.vocabulary import Vocabulary


_KEPT = "kept.npz"
"""File of the kept token ids in a trimmed encoder's folder. The caches' keys have its name, because
earlier commits wrote another file."""


class Unlisted(Exception):
    """The token ids that texts and synonyms can reach cannot be listed."""


@dataclass(frozen=True)
class Prepared:
    """Folders that the trials of one machine read."""

    task: TokenizedTask
    """The tokenised, memory-mapped task."""
    labels: tuple[str, ...]
    """Class names in the order of their ids."""
    encoder: str
    """What `from_pretrained` takes; the trimmed encoder's folder where there is a `kept`."""
    tokenizer: str
    """What the tokenizer's `from_pretrained` takes."""
    kept: Path | None
    """File of the kept token ids (.npz), if the embedding table is trimmed."""
    vocabulary_size: int
    """Rows of the whole embedding table."""
    untrimmed: str = ""
    """Why the table is whole, where it should have been trimmed."""

    def vocabulary(self) -> Vocabulary | None:
        """The kept rows; None if the embedding table is whole."""
        from xlt_ray.data.vocabulary import Vocabulary

        return None if self.kept is None else Vocabulary.load(self.kept, self.vocabulary_size)


def prepare(spec: SearchSpec, since: float | None = None, cache: Path | None = None) -> Prepared:
    """Tokenise the task and trim the encoder, unless that is cached already.

    Safe to call from several processes at once; the first one does the work.

    Args:
        spec: The search, or one of its trials.
        since: Reuse data prepared on this machine at or after this time (seconds since 1970)
            without checking data and model again. A search passes its start time, so that its
            trials do not each read the tokenizer and all data.
        cache: Where prepared data goes; None: this machine's cache.

    Raises:
        UserError: If the task's data or the model is invalid.
    """
    from filelock import FileLock

    cache = cache or cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    record = cache / "prepared" / f"{_request(spec)}.json"
    with FileLock(cache / "preparation.lock"):
        if since is not None and record.exists() and record.stat().st_mtime >= since:
            return _read(record)
        prepared = _prepare(spec, cache)
        _write(prepared, record)
    return prepared


def _prepare(spec: SearchSpec, cache: Path) -> Prepared:
    from xlt_ray.data.tokenized import tokenize_task

    task = task_of(spec)
    encoder = check_encoder(spec.model)
    tokenized = tokenize_task(
        task,
        encoder.source,
        spec.training.max_length,
        cache / "tokenized",
        train_limit=spec.data.train_limit,
        dev_limit=spec.data.dev_limit,
        test_limit=spec.data.test_limit,
    )
    trimmed, untrimmed = None, ""
    if _trims(spec):
        try:
            trimmed = _trimmed_encoder(spec, task, tokenized, encoder, cache / "trimmed")
        except Unlisted as error:
            untrimmed = str(error)
    return Prepared(
        task=tokenized,
        labels=tuple(task.labels),
        encoder=encoder.source if trimmed is None else str(trimmed),
        tokenizer=encoder.source,
        kept=None if trimmed is None else trimmed / _KEPT,
        vocabulary_size=encoder.vocabulary,
        untrimmed=untrimmed,
    )


def _trims(spec: SearchSpec) -> bool:
    return spec.training.trim_vocabulary and spec.training.weight_decay == 0


def _request(spec: SearchSpec) -> str:
    """Return a digest of the spec's fields that determine the prepared data, as a file name."""
    asked = [
        __version__,
        _KEPT,
        spec.task,
        spec.target_languages,
        spec.data_dir,
        spec.model,
        spec.method.view.synonyms,
        spec.training.max_length,
        _trims(spec),
        spec.data.model_dump(),
    ]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]


def _write(prepared: Prepared, record: Path) -> None:
    values = {
        "task": str(prepared.task.folder),
        "labels": prepared.labels,
        "encoder": prepared.encoder,
        "tokenizer": prepared.tokenizer,
        "kept": prepared.kept and str(prepared.kept),
        "vocabulary_size": prepared.vocabulary_size,
        "untrimmed": prepared.untrimmed,
    }
    record.parent.mkdir(exist_ok=True)
    write_whole(record, json.dumps(values))


def _read(record: Path) -> Prepared:
    values = json.loads(record.read_text(encoding="utf-8"))
    return Prepared(
        task=TokenizedTask.open(Path(values["task"])),
        labels=tuple(values["labels"]),
        encoder=values["encoder"],
        tokenizer=values["tokenizer"],
        kept=values["kept"] and Path(values["kept"]),
        vocabulary_size=values["vocabulary_size"],
        untrimmed=values.get("untrimmed", ""),
    )


def _trimmed_encoder(
    spec: SearchSpec, task: TaskSpec, tokenized: TokenizedTask, encoder: EncoderInfo, cache: Path
) -> Path:
    """Write the encoder with only its reachable embedding rows, unless it is cached.

    Returns:
        The encoder's folder, with the kept token ids in a file.

    Raises:
        Unlisted: If the synonym views are too many to list, which happens for texts without white
            space between words, or if tokens may cross spaces.
    """
    folder = cache / _trimmed_key(spec, task, tokenized, encoder)
    if folder.exists():
        return folder

    from xlt_ray.data.vocabulary import pretrained_weights
    from xlt_ray.encoders.loading import load_classifier_with_missing

    try:
        vocabulary = _reachable(tokenized, encoder, spec.method.view.synonyms)
    except ValueError as error:
        raise Unlisted(str(error)) from None
    classifier, missing = load_classifier_with_missing(encoder.source, tuple(task.labels), seed=0)
    vocabulary.trim(classifier)
    with new_folder(folder) as building:
        _save(classifier, pretrained_weights(classifier, missing), building)
        vocabulary.save(building / _KEPT)
    return folder


def _trimmed_key(
    spec: SearchSpec, task: TaskSpec, tokenized: TokenizedTask, encoder: EncoderInfo
) -> str:
    """Return the folder name of a trimmed encoder: a digest of everything that determines it."""
    synonyms, source = spec.method.view.synonyms, Path(encoder.source)
    weights: object
    if source.is_dir():
        files = sorted(file for file in source.glob("*") if file.suffix in (".safetensors", ".bin"))
        weights = [(file.name, _stamp(file)) for file in files]
    else:
        weights = hub_commit(encoder.source)
    key = [
        __version__,
        _KEPT,
        str(tokenized.folder),
        encoder.source,
        weights,
        synonyms,
        _stamp(Path(synonyms).expanduser()),
        task.labels,
    ]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]


def _reachable(tokenized: TokenizedTask, encoder: EncoderInfo, synonyms: str) -> Vocabulary:
    """Return the ids of all tokens in the task's texts and their synonym views.

    Raises:
        ValueError: If a text has too many views to list.
    """
    import numpy as np

    from xlt_ray.data.vocabulary import Vocabulary, reachable_ids
    from xlt_ray.encoders.loading import load_tokenizer
    from xlt_ray.method.synonym_view import SynonymView
    from xlt_ray.method.synonyms import load_synonyms

    tokenizer = load_tokenizer(encoder.source)
    view = SynonymView(load_synonyms(synonyms), 1.0, seed=0)
    train, dev, test = (
        tokenized.train(),
        tokenized.evaluation("dev"),
        tokenized.evaluation("test"),
    )
    trained = reachable_ids(tokenizer, [_ids(train)], _texts(train), view)
    source = np.flatnonzero(
        np.asarray(dev["language"]) == tokenized.languages.index(tokenized.source_language)
    )
    evaluated = reachable_ids(tokenizer, map(_ids, (dev, test)), _texts(dev.select(source)), view)
    return Vocabulary.of(trained, evaluated, encoder.vocabulary)


def _ids(data: Dataset) -> np.ndarray:
    """Return the token ids of a split, all languages together: (tokens,)."""
    import numpy as np

    from xlt_ray.data.tokenized import token_rows

    return np.concatenate(token_rows(data, "input_ids"))


def _texts(data: Dataset) -> list[str]:
    """Return the texts of a split, those of pairs too."""
    columns = [name for name in ("text_a", "text_b") if name in data.column_names]
    return [text for name in columns for text in data[name]]


def _save(classifier: PreTrainedModel, weights: dict[str, Tensor], folder: Path) -> None:
    """Write a model for `from_pretrained`, whichever worker this is.

    `save_pretrained` writes on the first worker of a process group only, and that one may be on
    another node or wait for this one to have prepared.
    """
    from safetensors.torch import save_file

    # A tied tensor is stored under each of its names, which the format takes as copies only.
    seen: set[int] = set()
    stored = {}
    for name, tensor in weights.items():
        stored[name] = tensor.clone() if tensor.data_ptr() in seen else tensor.contiguous()
        seen.add(tensor.data_ptr())
    classifier.config.save_pretrained(folder)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


def _stamp(file: Path) -> list[int]:
    """Return size and time of a local file, which may be replaced under the same name."""
    if not file.exists():
        return []
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]
