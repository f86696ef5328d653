"""The errors a person is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a file, a flag or a data set, told in one line.

    The message says what is wrong, where, and what would be right. The command line prints it
    without a traceback and exits with code 2.
    """


def in_one_line(error: BaseException) -> str:
    """Return an error's text in one line, or its type's name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def brief(text: str) -> str:
    """What was given, to be told; of a text as long as a page only its ends."""
    return text if len(text) <= 80 else f"{text[:40]}…{text[-39:]}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """Suggest a correction for a mistyped name.

    Args:
        name: What was given.
        valid: What would have been accepted.

    Returns:
        `` (did you mean 'x'?)`` for the closest valid name, else the list of valid names in
        the same form; ready to be appended to a message.
    """
    options = list(valid)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f" (did you mean '{close[0]}'?)"
    return f" (valid: {', '.join(options)})" if options else ""
