"""Dev and test texts of every language as token ids; training and evaluation score them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from xlt_ray.data.tokenized import TokenizedTask, token_rows
from xlt_ray.data.vocabulary import Vocabulary
from xlt_ray.method.synonym_view import SynonymView
from xlt_ray.names import VIRTUAL

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
    row: np.ndarray
    """Position of each text in its language's split (texts,)."""
    languages: Sequence[str]
    """Language codes."""
    source: str
    """Code of the source language."""
    pad_id: int
    """The id that pads `input_ids`."""

    def only_source(self) -> EvaluationSet:
        """Return the texts of the source language alone."""
        chosen = self.only(self.language == self.languages.index(self.source))
        return replace(chosen, language=np.zeros_like(chosen.language), languages=(self.source,))

    def sample_targets(self, rows: int) -> EvaluationSet:
        """Return `rows` rows of every target language, and all of the source language.

        They are drawn at random, always the same, because a file may be sorted by class. Of a
        parallel dev set, each language has other rows until all have been drawn, and classes are
        about as frequent among them as in the source language. Labels of the targets are not read.
        """
        chosen = np.zeros(len(self.labels), dtype=bool)
        source = self.labels[self.language == self.languages.index(self.source)]
        for number, code in enumerate(self.languages):
            own = np.flatnonzero(self.language == number)
            if code != self.source:
                order = np.random.default_rng(0).permutation(len(own))
                if len(own) == len(source):
                    order = _interleave_classes(order, source)
                own = np.roll(own[order], -number * rows)[:rows]
            chosen[own] = True
        return self.only(chosen)

    def first_rows(self, rows: int) -> EvaluationSet:
        """Return the first `rows` rows of every language."""
        return self.only(self.row < rows)

    def only(self, chosen: np.ndarray) -> EvaluationSet:
        """Return the texts selected by a boolean mask (texts,)."""
        numbers = np.flatnonzero(chosen).tolist()
        return replace(
            self,
            inputs={name: [column[i] for i in numbers] for name, column in self.inputs.items()},
            labels=self.labels[numbers],
            language=self.language[numbers],
            row=self.row[numbers],
        )


def _interleave_classes(order: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Reorder rows so that each stretch of them has about the class shares of all rows.

    Args:
        order: Positions of the rows in any order (rows,); kept within each class.
        labels: Class ids of the rows (rows,).

    Returns:
        The same positions in another order (rows,).
    """
    classes = labels[order]
    place = np.empty(len(order))
    for label in np.unique(classes):
        own = np.flatnonzero(classes == label)
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
    interleaved: np.ndarray = order[np.argsort(place, kind="stable")]
    return interleaved


def evaluation_set(
    task: TokenizedTask, split: Literal["dev", "test"], pad_id: int, vocabulary: Vocabulary | None
) -> EvaluationSet:
    """Read one split of every language from the tokenised task."""
    data = task.evaluation(split)
    return EvaluationSet(
        inputs=token_inputs(data, vocabulary),
        labels=np.asarray(data["label"]),
        language=np.asarray(data["language"]),
        row=np.asarray(data["row"]),
        languages=task.languages,
        source=task.source_language,
        pad_id=pad_id,
    )


def with_virtual_source(
    dev: EvaluationSet,
    task: TokenizedTask,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    view: SynonymView,
    vocabulary: Vocabulary | None,
    views: int = 1,
) -> EvaluationSet:
    """Add synonym views of each source-language dev text, as a separate language.

    Accuracy on these views needs no target-language label and shows how a model generalises
    beyond the original texts. Source-language accuracy alone predicts transfer badly (Keung et
    al., EMNLP 2020).

    Args:
        dev: The dev set.
        task: The tokenised task of the dev set.
        tokenizer: The encoder's tokenizer.
        max_length: Longest input in tokens.
        view: Draws the views.
        vocabulary: The kept rows if the embedding table is trimmed.
        views: Views of each text (>= 1); the first are the same for every number.

    Returns:
        The dev set with the language `<source>_virtual`, whose texts are those of the source
        language, once per view.
    """
    source = dev.languages.index(dev.source)
    chosen = np.flatnonzero(dev.language == source)
    data = task.evaluation("dev").select(chosen)
    columns = [
        [
            view.perturb(text, epoch=number, row=row, column=column)
            for number in range(views)
            for row, text in zip(data["row"], data[name], strict=True)
        ]
        for column, name in enumerate(n for n in ("text_a", "text_b") if n in data.column_names)
    ]
    encoded = tokenizer(*columns, truncation="longest_first", max_length=max_length)
    inputs = {name: [np.array(row) for row in encoded[name]] for name in dev.inputs}
    if vocabulary is not None:
        inputs["input_ids"] = [vocabulary.rows(ids) for ids in inputs["input_ids"]]
    return EvaluationSet(
        inputs={name: [*rows, *inputs[name]] for name, rows in dev.inputs.items()},
        labels=np.concatenate([dev.labels, np.tile(dev.labels[chosen], views)]),
        language=np.concatenate([dev.language, np.full(views * len(chosen), len(dev.languages))]),
        row=np.concatenate([dev.row, np.tile(dev.row[chosen], views)]),
        languages=(*dev.languages, dev.source + VIRTUAL),
        source=dev.source,
        pad_id=dev.pad_id,
    )


def token_inputs(data: Dataset, vocabulary: Vocabulary | None) -> dict[str, list[np.ndarray]]:
    """Read the model inputs of a data set, as rows of the trimmed table if there is one."""
    inputs = {name: token_rows(data, name) for name in INPUTS if name in data.column_names}
    if vocabulary is not None:
        inputs["input_ids"] = [vocabulary.rows(ids) for ids in inputs["input_ids"]]
    return inputs
