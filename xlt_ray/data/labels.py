"""Which class a value of the label column means; `labelled` asks for every row.

Values have the types of their file: text in TSV and CSV; also numbers, booleans and null in JSON
lines and Parquet.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from xlt_ray.config.task import TaskSpec
from xlt_ray.errors import UserError, brief, nearest

_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?")
"""A number as data writes it, pandas' `1.0` included."""


class ClassIds:
    """The class ids of the values of a label column.

    A text is a declared value (`label_values`) or a class name. A number is a declared value, else
    the position of a name in ``names``, else a class name with the same value, else a class id. A
    text such as `1.0` that is neither a declared value nor a name counts as its number.

    Args:
        task: The task.
        names: The data's own names of its class numbers, in order; None or their own numbers
            (`0`, `1`, ...): it has none.
        where: The data, for error messages.

    Raises:
        UserError: If the data's names are not the task's classes.
    """

    def __init__(self, task: TaskSpec, names: Sequence[str] | None, where: str) -> None:
        self._task = task
        ids = {name: index for index, name in enumerate(task.labels)}
        declared = {raw: ids[name] for raw, name in task.label_values.items()}
        composed = {unicodedata.normalize("NFC", text): text for text in (*ids, *declared)}
        self._texts = ids | declared
        self._composed = {form: self._texts[text] for form, text in composed.items()}
        numbers: dict[Decimal, set[int]] = {}
        if names is not None and list(names) != [str(index) for index in range(len(names))]:
            resolved = self._of_names(names, where)
            numbers = {Decimal(index): {found} for index, found in resolved.items()}
        else:
            for name, index in ids.items():
                if (value := _value(name)) is not None:
                    numbers.setdefault(value, set()).add(index)
            # Where a name is itself a number, an id would be ambiguous.
            if not numbers:
                numbers = {Decimal(index): {index} for index in ids.values()}
        of_declared: dict[Decimal, set[int]] = {}
        for raw, index in declared.items():
            if (value := _value(raw)) is not None:
                of_declared.setdefault(value, set()).add(index)
        self._numbers = numbers | of_declared
        self._signed = any(
            text[:1] in ("+", "-") and _value(text) is not None for text in self._texts
        )

    def _of_names(self, names: Sequence[str], where: str) -> dict[int, int]:
        """Return the class id of each of the data's class numbers."""
        found: dict[int, int] = {}
        for number, name in enumerate(names):
            # A number that is declared needs no name.
            index = self._texts.get(str(number)) if str(number) in self._task.label_values else None
            index = self._of_text(name) if index is None else index
            found[number] = -1 if index is None else index
        if set(found.values()) != set(range(len(self._task.labels))):
            raise UserError(
                f"{where}: the data's classes are {brief(', '.join(names))}, the task's labels are "
                f"{brief(', '.join(self._task.labels))}; give the task the data's names, or map "
                "them in label_values"
            )
        return found

    def _of_text(self, text: str) -> int | None:
        """Return the class id of a text; `ü` is the same in one code point and in two."""
        if (index := self._texts.get(text)) is not None:
            return index
        return self._composed.get(unicodedata.normalize("NFC", text))

    def of(self, value: Any) -> int:
        """Return the class id of a value.

        Raises:
            ValueError: If it is no class, or may be several; the message says why.
        """
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise ValueError("the label is missing (null); fill it in or remove the row")
        if isinstance(value, bool):
            return self._of_boolean(value)
        if isinstance(value, str):
            if (index := self._of_text(value)) is not None:
                return index
            readable = _NUMBER.fullmatch(value) and (self._signed or value[0] not in "+-")
            number = Decimal(value) if readable else None
        elif isinstance(value, int | float | Decimal):
            number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        else:
            raise ValueError(f"the label is a {type(value).__name__}; expected a text or a number")
        found = self._numbers.get(number, set()) if number is not None else set()
        if len(found) > 1:
            named = " or ".join(repr(self._task.labels[index]) for index in sorted(found))
            raise ValueError(
                f"label {_shown(value)} may be {named}; write the labels as text, or declare the "
                "number in label_values"
            )
        if not found:
            raise ValueError(self._unknown(value))
        return next(iter(found))

    def _of_boolean(self, value: bool) -> int:
        word = str(value).casefold()
        found = {index for text, index in self._texts.items() if text.casefold() == word}
        if len(found) != 1:
            raise ValueError(
                f"the label is the boolean {word}, which is no class; declare it in label_values, "
                f"such as '{word}': {self._task.labels[int(value)]}"
            )
        return found.pop()

    def _unknown(self, value: Any) -> str:
        labels = self._task.labels
        hint = nearest(str(value), labels)
        valid = f"; valid: {', '.join(labels)}" if "did you mean" in hint else hint
        suggestion = hint if "did you mean" in hint else ""
        absent = str(value) in ("-1", "-1.0")
        missing = ", which data sets put where a label is missing" if absent else ""
        return f"unknown label {_shown(value)}{missing}{suggestion}{valid}"


def _value(text: str) -> Decimal | None:
    """Return the value of a class name that is a number; None: it is no number."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _shown(value: Any) -> str:
    return brief(repr(value) if isinstance(value, str) else str(value))
