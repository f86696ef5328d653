"""Exit codes and one-line errors of a command line; `xlt-ray` and the scripts call it."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable

import typer

from xlt_ray.errors import UserError, brief


def run_command_line(command: typer.Typer | Callable[..., None]) -> None:
    """Run a command line and exit.

    A user's mistake is one line on standard error and exit code 2; Ctrl-C is exit code 130.

    Args:
        command: A Typer application, or a function whose arguments Typer reads.

    Raises:
        SystemExit: Always.
    """
    if isinstance(command, typer.Typer):
        app = command
    else:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command()(command)
    try:
        # In standalone mode, Typer would draw a box of several lines around a mistyped flag.
        sys.exit(app(standalone_mode=False))
    except (typer.Abort, KeyboardInterrupt):
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        message = str(error)
    except typer.TyperException as error:
        text = re.sub(r"\S{80,}", lambda word: brief(word[0]), error.format_message())
        message = f"{text.rstrip('.')}; --help shows the flags"
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        message = f"{brief(error.filename)}: the file name is too long"
    print(f"error: {_safe_line(message)}", file=sys.stderr)
    sys.exit(2)


def _safe_line(text: str) -> str:
    """Return a message in one line, without the login of a URL that it quotes."""
    text = re.sub(r"(?<=://)[^\s/]*@", "***@", text)
    control = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"
    return re.sub(control, lambda match: repr(match[0])[1:-1], text)
