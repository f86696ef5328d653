"""Exit codes and one-line errors."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
import typer

from xlt_ray.cli.command_line import run_command_line
from xlt_ray.errors import UserError


def ended(command: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(SystemExit) as raised:
        run_command_line(command)
    return raised.value.code


def test_a_user_error_is_one_line_without_logins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise UserError("bad\nplace\x1b s3://KEY:SECRET@bucket/x")

    assert ended(command, monkeypatch) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == "error: bad\\nplace\\x1b s3://***@bucket/x\n"


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    def failed() -> None:
        raise typer.Exit(1)

    def long() -> None:
        raise OSError(errno.ENAMETOOLONG, "File name too long", "x" * 500)

    assert not ended(lambda: None, monkeypatch)
    assert ended(failed, monkeypatch) == 1
    assert ended(stopped, monkeypatch) == 130
    assert ended(long, monkeypatch) == 2
    assert "the file name is too long" in capsys.readouterr().err


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.argv", ["program"])
    with pytest.raises(OSError, match="No space left"):
        run_command_line(command)
