"""UserError, the error that users see without a traceback, and helpers for its messages."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a file, a flag or a data set.

    The message is one line: ``<where>: <what is wrong>; <what to do>``. The command line prints it
    without a traceback and exits with code 2.
    """


def in_one_line(error: BaseException) -> str:
    """Return an error's text in one line, or the name of its type if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def unreadable(where: object, error: OSError) -> UserError:
    """Return what to tell about a file or folder that the system does not let us read.

    Args:
        where: Its path; with the flag or key that names it, if there is one.
        error: Its error, which has a number; Arrow's have no text of their own.
    """
    assert error.errno is not None
    return UserError(f"{where}: cannot be read ({os.strerror(error.errno)})")


def brief(text: str) -> str:
    """Shorten long input (over 80 characters) for display in an error message."""
    return text if len(text) <= 80 else f"{text[:40]}…{text[-39:]}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """Suggest a correction for a mistyped name.

    Args:
        name: The mistyped name.
        valid: The accepted names.

    Returns:
        Text to append to a message: `` (did you mean 'x'?)`` if a valid name is close, else
        `` (valid: x, y)``, of more than 40 the first, or an empty text if there are no valid names.
    """
    options = list(valid)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f" (did you mean '{close[0]}'?)"
    shown = ", ".join(options[:40])
    if len(options) > 40:
        shown += f" and {len(options) - 40} more"
    return f" (valid: {shown})" if options else ""


def install_command(extra: str) -> str:
    """Return how to install an optional part of the project, such as `onnx`, for a message."""
    return f".venv/bin/pip install -c constraints.txt -e '.[{extra}]' in the project's folder"


def refused_writing(error: BaseException) -> bool:
    """Tell whether an error, or its cause, is that a file may not be written."""
    refusals = (errno.EACCES, errno.EPERM, errno.EROFS)
    causes = (error, error.__cause__)
    return any(isinstance(one, OSError) and one.errno in refusals for one in causes)
