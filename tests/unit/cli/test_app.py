"""The commands of `xlt-ray`: all are there, `search` is the default, and starting is light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.support.command_line import refused, run_main
from tests.support.searching import ROOT, environment
from xlt_ray.cli.app import app

COMMANDS = ["search", "train", "evaluate", "predict", "export", "push", "report", "ui"]


def test_every_command_is_there() -> None:
    group = typer.main.get_command(app)
    assert list(group.commands) == COMMANDS  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_page(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output, errors = run_main([command, "--help"], monkeypatch, capsys)
    assert code == 0 and errors == ""
    assert f"xlt-ray {command} [OPTIONS]" in output


def test_help_without_a_command_names_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output, _ = run_main(["--help"], monkeypatch, capsys)
    assert code == 0 and "--num-trials" in output
    for command in COMMANDS:
        assert f"xlt-ray {command}: " in output


@pytest.mark.parametrize("flags", [["--list"], ["--search", "dmo"], []])
def test_search_is_the_default_command(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run_main(["search", *flags], monkeypatch, capsys)
    assert run_main(flags, monkeypatch, capsys) == expected


def test_an_unknown_command_is_corrected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(["serch", "--list"], monkeypatch, capsys)
    assert message == "error: no command 'serch' (did you mean 'search'?)\n"


@pytest.mark.parametrize("words", [["--list"], ["report"], ["evaluate", "--model", "x"]])
def test_flags_are_checked_before_heavy_imports(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "try: from xlt_ray.cli import main; main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        env=environment(tmp_path) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    loaded = set(done.stderr.split())
    assert "xlt_ray.cli.app" in loaded, done.stderr
    assert not loaded & {"torch", "ray", "mlflow", "transformers", "datasets"}
