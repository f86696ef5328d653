"""`search` on the command line: its list; `test_bad_flags.py` has the wrong flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import refused, run_main
from xlt_ray.config.loading import available_searches


def test_the_list_describes_every_search(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output, errors = run_main(["search", "--list"], monkeypatch, capsys)
    assert not code and errors == ""
    names = [line.split()[0] for line in output.splitlines()]
    assert names == list(available_searches())
    assert all(len(line.split()) > 3 for line in output.splitlines())


def test_force_goes_with_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(["search", "--search", "demo", "--force"], monkeypatch, capsys)
    assert message == "error: --force goes with --resume only\n"
