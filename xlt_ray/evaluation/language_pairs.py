"""Generalized zero-shot evaluation: the first text in one language, the second in another.

Any two of L languages make a test set, L * L in all (G-XLT of Lewis et al., ACL 2020; for
classification Huang et al., EMNLP 2021). Nothing is tokenised again: the stored pairs are cut
between their texts and recombined.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xlt_ray.data.evaluation_set import EvaluationSet
from xlt_ray.data.vocabulary import Vocabulary
from xlt_ray.distributed import Workers
from xlt_ray.errors import UserError
from xlt_ray.evaluation.parallel import is_parallel
from xlt_ray.evaluation.predict import predict

_CHUNK = 16_384
"""Pairs built at once; many batches, so that workers have equal shares."""


def separator_ids(
    tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary | None = None
) -> frozenset[int]:
    """The ids that a tokenizer puts before, between and after the texts of a pair.

    Args:
        tokenizer: The encoder's tokenizer.
        vocabulary: The kept rows, when the embedding table is trimmed.
    """
    found = {
        token_id
        for token_id in (
            tokenizer.cls_token_id,
            tokenizer.bos_token_id,
            tokenizer.sep_token_id,
            tokenizer.eos_token_id,
        )
        if token_id is not None
    }
    if vocabulary is None:
        return frozenset(found)
    return frozenset(vocabulary.rows(np.array(sorted(found))).tolist())


@dataclass(frozen=True)
class CrossPairs:
    """The pairs of every language's first texts with every language's second texts.

    The pair of premise language i, hypothesis language j and row r of R has the number
    (i * L + j) * R + r. It is built when asked for.
    """

    texts: np.ndarray
    """Number of the stored pair of each language and row (L, R)."""
    lengths: np.ndarray
    """Tokens of each pair, special tokens included (L * L * R,)."""
    _inputs: Mapping[str, Sequence[np.ndarray]]
    _layout: _Layout
    _first_kept: np.ndarray
    _second_kept: np.ndarray

    def inputs(self, pairs: np.ndarray) -> dict[str, list[np.ndarray]]:
        """Build pairs.

        Args:
            pairs: Numbers of pairs (pairs,).

        Returns:
            `input_ids` and, where the stored pairs have them, `token_type_ids` of each.
        """
        languages, rows = self.texts.shape
        premise, hypothesis, row = np.unravel_index(pairs, (languages, languages, rows))
        firsts, seconds = self.texts[premise, row], self.texts[hypothesis, row]
        layout = self._layout
        end = layout.before + layout.first[firsts]
        start = layout.before + layout.first[seconds] + layout.between
        # First text, what follows it, second text, what follows it.
        cuts = np.stack(
            (
                layout.before + self._first_kept[pairs],
                end,
                end + layout.between,
                start,
                start + self._second_kept[pairs],
                start + layout.second[seconds],
            ),
            axis=1,
        ).tolist()
        stored = list(zip(firsts.tolist(), seconds.tolist(), cuts, strict=True))
        return {
            name: [
                np.concatenate((column[i][:a], column[i][b:c], column[j][d:e], column[j][f:]))
                for i, j, (a, b, c, d, e, f) in stored
            ]
            for name, column in self._inputs.items()
        }


@dataclass(frozen=True)
class _Layout:
    """Where the texts are in stored pairs: special tokens, a, special tokens, b, special tokens."""

    before: int
    """Special tokens before the first text."""
    between: int
    """Special tokens between the texts."""
    after: int
    """Special tokens after the second text."""
    first: np.ndarray
    """Tokens of each pair's first text (pairs,)."""
    second: np.ndarray
    """Tokens of each pair's second text (pairs,)."""


def cross_pairs(
    inputs: Mapping[str, Sequence[np.ndarray]],
    language: np.ndarray,
    row: np.ndarray,
    languages: Sequence[str],
    separator_ids: Collection[int],
    max_length: int,
) -> CrossPairs:
    """Pair every language's first texts with every language's second texts, row by row.

    A combined pair that is too long is cut as the tokenizer would (`longest_first`). A text that
    was already cut within its own pair stays so, even where its new partner would leave room.

    Args:
        inputs: `input_ids` of each stored pair, special tokens included and padding not, and
            `token_type_ids` where the encoder uses them.
        language: Position in `languages` of each pair's language (pairs,).
        row: Position of each pair in its language's split (pairs,).
        languages: Codes of the languages.
        separator_ids: The ids that stand between and after the texts (:func:`separator_ids`); a
            stored pair's first id is taken for one.
        max_length: Most tokens of a pair, special tokens included.

    Raises:
        UserError: If the inputs are no pairs of texts, or the languages have unlike rows.
    """
    rows = [np.unique(row[language == index]) for index in range(len(languages))]
    if len(language) != sum(map(len, rows)) or any(
        not np.array_equal(rows[0], other) for other in rows
    ):
        raise UserError(
            "generalized evaluation needs parallel data: every language with the same rows"
        )
    texts = np.lexsort((row, language)).reshape(len(languages), -1)
    layout = _layout(inputs["input_ids"], separator_ids)
    special = layout.before + layout.between + layout.after
    first, second = np.broadcast_arrays(layout.first[texts][:, None], layout.second[texts][None, :])
    kept = _longest_first(first.ravel(), second.ravel(), max_length - special)
    return CrossPairs(texts, special + kept[0] + kept[1], inputs, layout, *kept)


def _layout(ids: Sequence[np.ndarray], separators: Collection[int]) -> _Layout:
    listed = np.array(sorted(separators))
    positions = []
    for text in ids:
        special = np.isin(text, listed)
        special[0] = True
        positions.append(np.flatnonzero(~special))
    # Pairs with an empty text show one long run of special tokens, and texts can hold some of
    # their own; so the runs' lengths are the least seen in pairs of two texts.
    runs = []
    for text, own in zip(ids, positions, strict=True):
        gaps = np.diff(own) - 1
        if gaps.any():
            runs.append((own[0], gaps[gaps > 0][0], len(text) - 1 - own[-1]))
    if not runs:
        raise _no_pairs()
    before, between, after = (int(least) for least in np.min(runs, axis=0))
    first = np.array([_end(own, before) - before for own in positions], dtype=np.int32)
    lengths = np.array([len(text) for text in ids], dtype=np.int32)
    second = lengths - (before + first + between + after)
    if second.min() < 0:
        raise _no_pairs()
    return _Layout(before, between, after, first, second)


def _end(positions: np.ndarray, start: int) -> int:
    """Where the unbroken run of positions that begins at `start` ends; `start` if none does."""
    ahead = positions[np.searchsorted(positions, start) :]
    return start + int((ahead == np.arange(start, start + len(ahead))).cumprod().sum())


def _no_pairs() -> UserError:
    return UserError(
        "generalized evaluation needs pairs of texts with special tokens between them; "
        "this task's inputs are single texts"
    )


def _longest_first(
    first: np.ndarray, second: np.ndarray, budget: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that truncation leaves of two texts, as the tokenizers library counts them.

    The longer text loses tokens until both are equal, then both do; of an odd budget the longer
    text keeps the odd token, and the second of two equal ones.

    Args:
        first: Tokens of first texts (pairs,).
        second: Tokens of second texts (pairs,).
        budget: Most tokens of both together.

    Returns:
        Tokens kept of the first and of the second texts, (pairs,) each.
    """
    shorter = np.minimum(np.minimum(first, second), budget // 2)
    cut = np.where(first > second, budget - shorter, shorter)
    fits = first + second <= budget
    return np.where(fits, first, cut), np.where(fits, second, budget - cut)


def accuracy_matrix(
    classifier: PreTrainedModel,
    data: EvaluationSet,
    *,
    separator_ids: Collection[int],
    workers: Workers,
    max_length: int,
) -> np.ndarray:
    """Score a classifier on every pair of languages.

    Args:
        classifier: A sequence classification model.
        data: Stored pairs of L languages, parallel; its inputs as :func:`cross_pairs` takes them.
        separator_ids: The ids that stand between and after the texts (:func:`separator_ids`).
        workers: Who takes part; each classifies its share and learns of all.
        max_length: Most tokens of a pair, special tokens included.

    Returns:
        Accuracies in [0, 1] (L, L): the first text in the language of the matrix row, the second
        in that of the column; the same on every worker. The diagonal is ordinary evaluation,
        batch by batch.

    Raises:
        UserError: If the inputs are no pairs of texts, or not parallel (see
            :func:`xlt_ray.evaluation.parallel.is_parallel`).
    """
    inputs, languages = data.inputs, data.languages
    if not is_parallel(data.language, data.row, data.labels, languages):
        raise UserError(
            "generalized evaluation needs parallel data: "
            "every language with the same rows and the same labels"
        )
    pairs = cross_pairs(inputs, data.language, data.row, languages, separator_ids, max_length)
    count = len(languages)
    predictions = np.empty((count, count, pairs.texts.shape[1]), dtype=np.int64)

    def classify(given: Mapping[str, Sequence[np.ndarray]]) -> np.ndarray:
        return predict(classifier, given, pad_id=data.pad_id, workers=workers)

    # Stored pairs in stored order make the batches of ordinary evaluation, so that the diagonal is
    # the same to the last text in any arithmetic.
    stored = np.sort(pairs.texts, axis=None)
    own = np.empty(len(data.labels), dtype=np.int64)
    own[stored] = classify({name: [column[i] for i in stored] for name, column in inputs.items()})
    diagonal = np.arange(count)
    predictions[diagonal, diagonal] = own[pairs.texts]

    numbers = np.arange(predictions.size).reshape(predictions.shape)
    others = numbers[~np.eye(count, dtype=bool)].ravel()
    others = others[np.argsort(-pairs.lengths[others], kind="stable")]
    for start in range(0, len(others), _CHUNK):
        chunk = others[start : start + _CHUNK]
        predictions.flat[chunk] = classify(pairs.inputs(chunk))
    return (predictions == data.labels[pairs.texts[0]]).mean(-1)


def generalized_metrics(
    matrix: np.ndarray, languages: Sequence[str], source: str
) -> dict[str, float]:
    """Summarise an accuracy matrix.

    Args:
        matrix: Accuracies (L, L), as :func:`accuracy_matrix` returns them; L >= 2.
        languages: Codes of the L languages.
        source: Code of the source language.

    Returns:
        Means, in [0, 1]: `generalized/mean` over all pairs of languages;
        `generalized/diagonal_mean` over those of one language, ordinary evaluation;
        `generalized/off_diagonal_mean` over those of two; and of the latter
        `generalized/source_premise_mean` and `generalized/source_hypothesis_mean` over those
        whose first or second text is in the source language.
    """
    one = np.eye(len(languages), dtype=bool)
    start = languages.index(source)
    return {
        "generalized/mean": float(matrix.mean()),
        "generalized/diagonal_mean": float(matrix[one].mean()),
        "generalized/off_diagonal_mean": float(matrix[~one].mean()),
        "generalized/source_premise_mean": float(np.delete(matrix[start], start).mean()),
        "generalized/source_hypothesis_mean": float(np.delete(matrix[:, start], start).mean()),
    }


def write_table(matrix: np.ndarray, languages: Sequence[str], path: Path) -> None:
    """Write an accuracy matrix as CSV: a line a premise language, a column a hypothesis language.

    Args:
        matrix: Accuracies (L, L).
        languages: Codes of the L languages.
        path: The file; replaced if it exists.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["premise", *languages])
        for code, accuracies in zip(languages, matrix.tolist(), strict=True):
            writer.writerow([code, *accuracies])
