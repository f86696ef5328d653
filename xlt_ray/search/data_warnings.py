"""Find what is odd about data that can be trained on; `make_plan` calls it, the plan warns of it.

Each function returns one warning, or an empty text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

from xlt_ray.config.task import Split, TaskSpec
from xlt_ray.data.labelled import Examples
from xlt_ray.encoders.loading import EncoderInfo
from xlt_ray.errors import UserError
from xlt_ray.method.synonyms import WORD

LEAST_SYNONYMS = 0.01
"""Share of words with a synonym below which views hardly differ from their texts."""

_FEW_PIECES = 0.5
_LETTER = re.compile(r"\w")
_INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Zs")
_NAMED = 3


def of_classes(task: TaskSpec, labels: Sequence[int], limit: int | None) -> str:
    """Warn of classes without a training row.

    Args:
        task: The task.
        labels: Class ids of the training rows that are used.
        limit: `data.train_limit`.

    Raises:
        UserError: If all rows are of one class.
    """
    found = set(labels)
    cut = limit is not None and limit <= len(labels)
    rows = f"{'first ' if cut else ''}{len(labels)} training rows"
    if len(found) == 1:
        remedy = "raise data.train_limit or shuffle the file" if cut else "give rows of others too"
        raise UserError(
            f"task {task.name}: the {rows} are all of class '{task.labels[labels[0]]}'; {remedy}"
        )
    absent = [name for number, name in enumerate(task.labels) if number not in found]
    if not absent:
        return ""
    return (
        f"none of the {rows} is of class {_some(map(repr, absent))}; "
        "a model cannot learn a class without rows, so add some or take it out of the task"
    )


def of_cut_classes(task: TaskSpec, cut: Mapping[tuple[Split, str], Sequence[int]]) -> str:
    """Warn of classes that a limit may have cut off.

    Args:
        task: The task.
        cut: Class ids of the rows that are used, by split and language, where `data.dev_limit` or
            `data.test_limit` leaves rows out.
    """
    for (split, language), labels in cut.items():
        found = set(labels)
        absent = [name for number, name in enumerate(task.labels) if number not in found]
        if absent:
            return (
                f"none of the first {len(labels)} {split} rows of {language} is of class "
                f"{_some(map(repr, absent))}; raise data.{split}_limit or shuffle the file"
            )
    return ""


def invisible_rows(examples: Examples) -> int:
    """Return how many rows have a text of which nothing is seen, such as a zero-width space."""
    return sum(any(map(_is_invisible, texts)) for texts in zip(*examples.texts, strict=True))


def of_invisible(
    task: TaskSpec,
    invisible: Mapping[tuple[Split, str], int],
    counts: Mapping[tuple[Split, str], int],
) -> str:
    """Warn of texts that consist of invisible characters.

    Args:
        task: The task.
        invisible: Rows with such a text, by split and language.
        counts: All rows.

    Raises:
        UserError: If no row of a split and language is without.
    """
    for key, count in counts.items():
        if invisible[key] == count:
            raise UserError(
                f"task {task.name}: every row of {' '.join(key)} has a text of invisible "
                "characters only; fill them in"
            )
    odd = [f"{' '.join(key)} {count}" for key, count in invisible.items() if count]
    if not odd:
        return ""
    return (
        f"rows with a text of invisible characters only: {_some(odd)}; fill them in or remove them"
    )


def of_synonyms(examples: Examples, synonyms: Collection[str]) -> str:
    """Warn of training texts that synonym views leave as they are.

    Args:
        examples: Some training rows.
        synonyms: Lower-case words that have synonyms.
    """
    texts = [text for column in examples.texts for text in column]
    words = [word.lower() for text in texts for word in WORD.findall(text)]
    known = sum(word in synonyms for word in words)
    if known >= LEAST_SYNONYMS * len(words) and known:
        return ""
    share = f"only {100 * known / len(words):.2g} %" if known else "none"
    return (
        f"method.view.synonyms: {share} of the words of {len(texts)} training texts "
        f"{'have' if known else 'has'} a synonym, so views {'nearly ' if known else ''}equal their "
        "texts; give a list that fits their language and domain"
    )


def of_equal_files(groups: Sequence[Sequence[str]]) -> str:
    """Warn of data files of the same content.

    Args:
        groups: Names of files of the same content.
    """
    if not groups:
        return ""
    return (
        f"files have the same content: {_some(' = '.join(names) for names in groups)}; give each "
        "split and language its own, or scores say nothing about new texts"
    )


def of_tokenizer(encoder: EncoderInfo) -> str:
    """Warn of a tokenizer that has far fewer pieces than the embedding table has rows."""
    if not 0 < encoder.pieces < _FEW_PIECES * encoder.vocabulary:
        return ""
    return (
        f"the model's tokenizer has {encoder.pieces:,} pieces, its embedding table "
        f"{encoder.vocabulary:,} rows; check that the tokenizer is the model's own"
    )


def of_whole_table(reason: str) -> str:
    """Warn of an embedding table that could not be trimmed, for a reason; an empty one: it was."""
    if not reason:
        return ""
    return (
        f"all rows of the embedding table are trained, which takes more memory and time: {reason}"
    )


def _is_invisible(text: str) -> bool:
    return not _LETTER.search(text) and all(
        unicodedata.category(character) in _INVISIBLE for character in text
    )


def _some(names: Iterable[str]) -> str:
    """Join names; of many, the first ones and how many more there are."""
    listed = list(names)
    more = len(listed) - _NAMED
    return ", ".join(listed[:_NAMED]) + (f" and {more} more" if more > 0 else "")
