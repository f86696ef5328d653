"""Training batches with virtual views; each worker of a trial builds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from xlt_ray.data.batching import pad_inputs
from xlt_ray.data.evaluation_set import token_inputs
from xlt_ray.data.tokenized import TokenizedTask
from xlt_ray.data.vocabulary import Vocabulary
from xlt_ray.method.synonym_view import SynonymView, draw_seed


@dataclass(frozen=True)
class BatchLayout:
    """Which arrays a training batch has, and how wide they are."""

    max_length: int
    """Longest input in tokens, special tokens included."""
    words: bool = False
    """Whether batches have `words`, the word number of each token."""
    padded: bool = False
    """Whether batches are padded to `max_length`, not to their longest text."""


class TrainingSet:
    """The source language's training examples, with a new virtual view in each epoch.

    Args:
        task: The tokenised task.
        tokenizer: The encoder's tokenizer; it tokenises the views.
        layout: Arrays and width of the batches.
        view: Virtual view of the texts. A `SynonymView` makes it here, from words; "noise" means
            that the objective makes it, from embeddings; None if the method uses no view.
        vocabulary: The kept rows if the embedding table is trimmed.
        seed: Seed of the noise.
    """

    def __init__(
        self,
        task: TokenizedTask,
        tokenizer: PreTrainedTokenizerBase,
        layout: BatchLayout,
        view: SynonymView | Literal["noise"] | None,
        vocabulary: Vocabulary | None,
        *,
        seed: int = 0,
    ) -> None:
        data = task.train()
        self.inputs = token_inputs(data, vocabulary)
        self.lengths = np.array([len(ids) for ids in self.inputs["input_ids"]])
        self._labels = np.asarray(data["label"])
        self._texts = [data[name] for name in ("text_a", "text_b") if name in data.column_names]
        self._rows = np.asarray(data["row"])
        self._tokenizer = tokenizer
        self._layout = layout
        self._view = view
        self._vocabulary = vocabulary
        self._seed = seed
        self._width = layout.max_length if layout.padded else 0
        special = np.array(tokenizer.all_special_ids)
        self._special = special if vocabulary is None else vocabulary.rows(special)

    def counts(self, rows: int) -> np.ndarray:
        """Count each row of the embedding table in the texts, without special tokens.

        Args:
            rows: Rows of the table.

        Returns:
            (rows,).
        """
        counts = np.bincount(np.concatenate(self.inputs["input_ids"]), minlength=rows)
        counts[self._special] = 0
        return counts

    def tokens(self, examples: np.ndarray) -> np.ndarray:
        """Estimate the tokens per example that the layers process, its view included.

        Args:
            examples: Example numbers (batch,).

        Returns:
            (batch,); a view is counted as long as its text.
        """
        lengths = np.maximum(self.lengths[examples], self._width)
        return lengths if self._view is None else 2 * lengths

    def batch(self, examples: np.ndarray, epoch: int, device: torch.device) -> dict[str, Tensor]:
        """Build the inputs of the objective.

        Args:
            examples: Example numbers (batch,).
            epoch: Number of the pass over the data, which the views depend on.
            device: Where the tensors go.

        Returns:
            What `Objective.forward` takes: `input_ids`, `attention_mask` (and
            `token_type_ids`, `words`) of the texts, followed by those of their views where there
            is one: (batch or 2 * batch, tokens); `tokens`, the positions of the real ones;
            `labels` (batch,); for noise `seeds` (batch,) and `perturbed` (batch, tokens), which
            stay on the CPU, because reading them from a GPU would block.
        """
        inputs = {name: [rows[i] for i in examples] for name, rows in self.inputs.items()}
        if self._layout.words:
            inputs["words"] = self._encode(self._texts_of(examples))["words"]
        if isinstance(self._view, SynonymView):
            views = self._encode(self._views_of(examples, epoch))
            inputs = {name: rows + views[name] for name, rows in inputs.items()}
        elif self._view == "noise":
            inputs = {name: rows + rows for name, rows in inputs.items()}
        arrays = pad_inputs(inputs, self._tokenizer.pad_token_id, self._width)
        if self._width:
            # The padded reduction includes padding, so the layers must process it.
            del arrays["tokens"]
        arrays["labels"] = self._labels[examples].astype(np.int64)
        if self._view == "noise":
            texts = slice(len(examples))
            special = np.isin(arrays["input_ids"][texts], self._special)
            arrays["perturbed"] = (arrays["attention_mask"][texts] == 1) & ~special
            arrays["seeds"] = np.array(
                [draw_seed(self._seed, epoch, int(self._rows[i])) for i in examples]
            )
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if device.type == "cuda":
            # A copy to the GPU is asynchronous only from pinned memory.
            tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
        return {
            name: tensor if name in ("seeds", "perturbed") else tensor.to(device, non_blocking=True)
            for name, tensor in tensors.items()
        }

    def _texts_of(self, examples: np.ndarray) -> list[list[str]]:
        return [[texts[int(i)] for i in examples] for texts in self._texts]

    def _views_of(self, examples: np.ndarray, epoch: int) -> list[list[str]]:
        assert isinstance(self._view, SynonymView)
        return [
            [
                self._view.perturb(text, epoch=epoch, row=int(self._rows[i]), column=column)
                for i, text in zip(examples, texts, strict=True)
            ]
            for column, texts in enumerate(self._texts_of(examples))
        ]

    def _encode(self, texts: list[list[str]]) -> dict[str, list[np.ndarray]]:
        """Tokenise the columns of a batch."""
        encoded = self._tokenizer(
            *texts,
            truncation="longest_first",
            max_length=self._layout.max_length,
            return_offsets_mapping=self._layout.words,
        )
        rows = {name: [np.array(row) for row in encoded[name]] for name in self.inputs}
        if self._vocabulary is not None:
            rows["input_ids"] = [self._vocabulary.rows(ids) for ids in rows["input_ids"]]
        if self._layout.words:
            rows["words"] = [
                word_numbers([column[i] for column in texts], encoded.sequence_ids(i), offsets)
                for i, offsets in enumerate(encoded["offset_mapping"])
            ]
        return rows


def word_numbers(
    texts: Sequence[str],
    columns: Sequence[int | None],
    offsets: Sequence[tuple[int, int]],
) -> np.ndarray:
    """Number the words of an input, such that a text and its synonym view correspond.

    Words are what white space separates: a synonym contains none. Special tokens are words of
    their own, and a text counts whole even where its end was truncated.

    Args:
        texts: The text, or the two of a pair.
        columns: Which text each token is of; None for special tokens.
        offsets: First and end character of each token in its text.

    Returns:
        Word number of each token (tokens,).
    """
    word_of_character = []
    after_text = []
    first = 1  # 0 is the special token before the texts.
    for text in texts:
        space = np.array([character.isspace() for character in text], dtype=bool)
        begins = ~space & np.concatenate([[True], space])[:-1]
        # White space counts to the word after it: a token may begin with it, or be nothing else.
        word_of_character.append(first - 1 + np.cumsum(begins) + space)
        after_text.append(first + int(begins.sum()))
        # One or two special tokens separate texts.
        first = after_text[-1] + 2
    numbers = np.zeros(len(offsets), dtype=np.int64)
    special = 0
    for token, (column, (_, end)) in enumerate(zip(columns, offsets, strict=True)):
        if column is None:
            numbers[token] = special
            special += 1
        else:
            numbers[token] = word_of_character[column][end - 1]
            special = after_text[column]
    return numbers
