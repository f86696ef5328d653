"""Runs the command line in this process."""

from __future__ import annotations

import sys

import pytest

from xlt_ray.cli.app import main


def run_main(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int | str | None, str, str]:
    """Run `xlt-ray` with some arguments; return exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["xlt-ray", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


def refused(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run `xlt-ray` with wrong arguments; return its message, which is one line."""
    code, output, errors = run_main(arguments, monkeypatch, capsys)
    assert code == 2 and output == ""
    assert errors.startswith("error: ") and len(errors.splitlines()) == 1
    return errors
