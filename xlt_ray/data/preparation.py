"""What every trial of a search shares on one machine, made once: tokens, kept rows, encoder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xlt_ray import __version__
from xlt_ray.config.spec import SearchSpec
from xlt_ray.config.task import TaskSpec, load_task, with_data_dir
from xlt_ray.data.tokenized import TokenizedTask
from xlt_ray.encoders.loading import EncoderInfo, check_encoder
from xlt_ray.files import cache_folder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from xlt_ray.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class Prepared:
    """Folders that the trials of one machine read."""

    task: TokenizedTask
    """The tokenised, memory-mapped task."""
    labels: tuple[str, ...]
    """Class names in the order of their ids."""
    encoder: str
    """What `from_pretrained` takes; the trimmed encoder's folder where `kept` is given."""
    tokenizer: str
    """What the tokenizer's `from_pretrained` takes."""
    kept: Path | None
    """File of the kept token ids (.npy), if the embedding table is trimmed."""
    vocabulary_size: int
    """Rows of the whole embedding table."""

    def vocabulary(self) -> Vocabulary | None:
        """The kept rows; None if the embedding table is whole."""
        import numpy as np

        from xlt_ray.data.vocabulary import Vocabulary

        return None if self.kept is None else Vocabulary(np.load(self.kept), self.vocabulary_size)


def prepare(spec: SearchSpec, since: float | None = None) -> Prepared:
    """Tokenise the task and trim the encoder, unless that is cached already.

    Safe to call from several processes at once; the first one does the work.

    Args:
        spec: The search, or one of its trials.
        since: If the same was prepared on this machine at or after this time (seconds since
            1970), that is taken without looking at data and model again. A search passes its
            start, so that its trials need not read a tokenizer and all of the data each.

    Raises:
        UserError: If the task's data or the model is not as it should be.
    """
    from filelock import FileLock

    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    record = cache / "prepared" / f"{_request(spec)}.json"
    with FileLock(cache / "preparation.lock"):
        if since is not None and record.exists() and record.stat().st_mtime >= since:
            return _read(record)
        prepared = _prepare(spec, cache)
        _write(prepared, record)
    return prepared


def _prepare(spec: SearchSpec, cache: Path) -> Prepared:
    from xlt_ray.data.tokenized import prepare as tokenize

    task = load_task(spec.task)
    if spec.data_dir is not None:
        task = with_data_dir(task, Path(spec.data_dir))
    encoder = check_encoder(spec.model)
    tokenized = tokenize(
        task,
        encoder.source,
        spec.training.max_length,
        cache / "tokenized",
        train_limit=spec.data.train_limit,
        dev_limit=spec.data.dev_limit,
        test_limit=spec.data.test_limit,
    )
    trimmed = None
    if _trims(spec):
        trimmed = _trimmed_encoder(spec, task, tokenized, encoder, cache / "trimmed")
    return Prepared(
        task=tokenized,
        labels=tuple(task.labels),
        encoder=encoder.source if trimmed is None else str(trimmed),
        tokenizer=encoder.source,
        kept=None if trimmed is None else trimmed / "kept.npy",
        vocabulary_size=encoder.vocabulary,
    )


def _trims(spec: SearchSpec) -> bool:
    return spec.training.trim_vocabulary and spec.training.weight_decay == 0


def _request(spec: SearchSpec) -> str:
    """All of a spec that decides what is prepared, as a file name."""
    asked = [
        __version__,
        spec.task,
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
    }
    record.parent.mkdir(exist_ok=True)
    staging = record.with_suffix(".new")
    staging.write_text(json.dumps(values), encoding="utf-8")
    staging.replace(record)


def _read(record: Path) -> Prepared:
    values = json.loads(record.read_text(encoding="utf-8"))
    return Prepared(
        task=TokenizedTask.open(Path(values["task"])),
        labels=tuple(values["labels"]),
        encoder=values["encoder"],
        tokenizer=values["tokenizer"],
        kept=values["kept"] and Path(values["kept"]),
        vocabulary_size=values["vocabulary_size"],
    )


def _trimmed_encoder(
    spec: SearchSpec, task: TaskSpec, tokenized: TokenizedTask, encoder: EncoderInfo, cache: Path
) -> Path | None:
    """Write the encoder with the reachable embedding rows only; None where that cannot be told.

    Texts without white space between words can become too many views to list.
    """
    view = spec.method.view
    key = json.dumps(
        [
            __version__,
            str(tokenized.folder),
            encoder.source,
            [
                (file.name, _stamp(file))
                for file in sorted(Path(encoder.source).glob("*"))
                if file.suffix in (".safetensors", ".bin")
            ],
            view.synonyms,
            _stamp(Path(view.synonyms).expanduser()),
            task.labels,
        ]
    )
    folder = cache / hashlib.sha256(key.encode()).hexdigest()[:24]
    if folder.exists():
        return folder

    import numpy as np
    from transformers import AutoTokenizer

    from xlt_ray.data.tokenized import token_rows
    from xlt_ray.data.vocabulary import Vocabulary, pretrained_weights, reachable_ids
    from xlt_ray.encoders.loading import load_classifier_with_missing
    from xlt_ray.method.synonym_view import SynonymView
    from xlt_ray.method.synonyms import load_synonyms

    def encoded() -> Iterator[np.ndarray]:
        splits = (tokenized.train(), tokenized.evaluation("dev"), tokenized.evaluation("test"))
        for data in splits:
            yield np.concatenate(token_rows(data, "input_ids"))

    # Views are drawn of the training texts and of the source language's dev texts.
    dev = tokenized.evaluation("dev")
    source = np.flatnonzero(
        np.asarray(dev["language"]) == tokenized.languages.index(tokenized.source_language)
    )
    texts = [
        text
        for data in (tokenized.train(), dev.select(source))
        for name in ("text_a", "text_b")
        if name in data.column_names
        for text in data[name]
    ]
    try:
        kept = reachable_ids(
            AutoTokenizer.from_pretrained(encoder.source, trust_remote_code=False),
            encoded(),
            texts,
            SynonymView(load_synonyms(view.synonyms), 1.0, seed=0),
        )
    except ValueError:
        return None
    classifier, missing = load_classifier_with_missing(encoder.source, tuple(task.labels), seed=0)
    Vocabulary(kept, encoder.vocabulary).trim(classifier)
    cache.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=cache))
    _save(classifier, pretrained_weights(classifier, missing), staging)
    np.save(staging / "kept.npy", kept)
    try:
        os.replace(staging, folder)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


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
    """A local file may be replaced under the same name; a hub's or a package's is not."""
    if not file.exists():
        return []
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]
