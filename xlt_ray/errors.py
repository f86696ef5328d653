"""The errors a person is meant to read."""

from __future__ import annotations

import difflib
import errno
import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


class UserError(Exception):
    """A mistake in a file, a flag or a data set, told in one line.

    The message says what is wrong, where, and what would be right. The command line prints it
    without a traceback and exits with code 2.
    """


def run_command_line(command: typer.Typer | Callable[..., None]) -> None:
    """Run a command line; a user's mistake is one line on standard error and exit code 2.

    Args:
        command: A Typer application, or a function whose arguments Typer reads.
    """
    import typer

    if isinstance(command, typer.Typer):
        app = command
    else:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(command)
    try:
        # By itself Typer would draw a box of several lines around a mistyped flag.
        sys.exit(app(standalone_mode=False))
    except (typer.Abort, KeyboardInterrupt):
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        told = str(error)
    except typer.TyperException as error:
        message = re.sub(r"\S{80,}", lambda word: brief(word[0]), error.format_message())
        told = f"{message.rstrip('.')}; --help shows the flags"
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        told = f"{brief(error.filename)}: no file can have a name as long as this"
    print(f"error: {_safe_line(told)}", file=sys.stderr)
    sys.exit(2)


def _safe_line(text: str) -> str:
    """A message in one line, without the login of a URL that it quotes."""
    text = re.sub(r"(?<=://)[^\s/]*@", "***@", text)
    control = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"
    return re.sub(control, lambda match: repr(match[0])[1:-1], text)


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
