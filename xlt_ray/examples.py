"""Tokenised examples as a trial's worker uses them: arrays, and batches with virtual views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from xlt_ray.batching import pad
from xlt_ray.tokenized import TokenizedTask
from xlt_ray.views import SynonymView
from xlt_ray.vocabulary import Vocabulary

if TYPE_CHECKING:
    from datasets import Dataset

INPUTS = ("input_ids", "token_type_ids")


@dataclass(frozen=True)
class EvaluationSet:
    """One split in every language."""

    inputs: Mapping[str, Sequence[np.ndarray]]
    """`input_ids` and, where the encoder uses them, `token_type_ids` of each text."""
    labels: np.ndarray
    """Gold class ids (texts,)."""
    language: np.ndarray
    """Position in `languages` of each text's language (texts,)."""
    languages: Sequence[str]
    """Language codes."""
    source: str
    """Code of the source language."""
    pad_id: int
    """The id that pads `input_ids`."""


def evaluation_set(
    task: TokenizedTask, split: Literal["dev", "test"], pad_id: int, vocabulary: Vocabulary | None
) -> EvaluationSet:
    """Read one split of every language from the tokenised task."""
    data = task.evaluation(split)
    return EvaluationSet(
        inputs=_inputs(data, vocabulary),
        labels=np.asarray(data["label"]),
        language=np.asarray(data["language"]),
        languages=task.languages,
        source=task.source_language,
        pad_id=pad_id,
    )


class TrainingSet:
    """The source language's training examples, with a fresh virtual view at each visit.

    Args:
        task: The tokenised task.
        tokenizer: The encoder's tokenizer, for the views.
        max_length: Longest input in tokens.
        view: Draws the views; None when the method uses none.
        vocabulary: The kept rows, when the embedding table is trimmed.
    """

    def __init__(
        self,
        task: TokenizedTask,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        view: SynonymView | None,
        vocabulary: Vocabulary | None,
    ) -> None:
        data = task.train()
        self.inputs = _inputs(data, vocabulary)
        self.lengths = np.array([len(ids) for ids in self.inputs["input_ids"]])
        self._labels = np.asarray(data["label"])
        self._texts = [data[name] for name in ("text_a", "text_b") if name in data.column_names]
        self._rows = np.asarray(data["row"])
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._view = view
        self._vocabulary = vocabulary

    def batch(self, examples: np.ndarray, epoch: int, device: torch.device) -> dict[str, Tensor]:
        """Build the inputs of the objective.

        Args:
            examples: Example numbers (batch,).
            epoch: Number of the pass over the data, which the views depend on.
            device: Where the tensors go.

        Returns:
            `input_ids`, `attention_mask` (and `token_type_ids`) of the texts, followed by those
            of their views where there is one: (batch or 2 * batch, tokens); `labels` (batch,).
        """
        inputs = {name: [rows[i] for i in examples] for name, rows in self.inputs.items()}
        if self._view is not None:
            for name, rows in self._view_inputs(examples, epoch).items():
                inputs[name] += rows
        lengths = np.array([len(ids) for ids in inputs["input_ids"]])
        pad_id = self._tokenizer.pad_token_id
        arrays = {
            name: pad(rows, pad_id if name == "input_ids" else 0) for name, rows in inputs.items()
        }
        width = arrays["input_ids"].shape[1]
        arrays["attention_mask"] = (np.arange(width) < lengths[:, None]).astype(np.int64)
        arrays["labels"] = self._labels[examples].astype(np.int64)
        return {
            name: torch.from_numpy(array).to(device, non_blocking=True)
            for name, array in arrays.items()
        }

    def _view_inputs(self, examples: np.ndarray, epoch: int) -> dict[str, list[np.ndarray]]:
        assert self._view is not None
        columns = [
            [
                self._view.perturb(
                    texts[int(i)], epoch=epoch, row=int(self._rows[i]), column=column
                )
                for i in examples
            ]
            for column, texts in enumerate(self._texts)
        ]
        encoded = self._tokenizer(*columns, truncation="longest_first", max_length=self._max_length)
        rows = {name: [np.array(row) for row in encoded[name]] for name in self.inputs}
        if self._vocabulary is not None:
            rows["input_ids"] = [self._vocabulary.rows(ids) for ids in rows["input_ids"]]
        return rows


def _inputs(data: Dataset, vocabulary: Vocabulary | None) -> dict[str, list[np.ndarray]]:
    """Read the model inputs of a data set, in the trimmed vocabulary where there is one."""
    inputs = {name: token_rows(data, name) for name in INPUTS if name in data.column_names}
    if vocabulary is not None:
        inputs["input_ids"] = [vocabulary.rows(ids) for ids in inputs["input_ids"]]
    return inputs


def token_rows(data: Dataset, name: str) -> list[np.ndarray]:
    """Read a column of integer lists without going through Python integers."""
    rows: list[np.ndarray] = []
    for chunk in data.with_format("arrow")[:][name].chunks:
        ends: Any = np.cumsum(chunk.value_lengths().to_numpy())
        rows += np.split(chunk.flatten().to_numpy().astype(np.int64), ends[:-1])
    return rows
