"""`ui` on the command line: mistakes, and the address of a server; `integration` serves pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import refused, run_main


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "there is no database"),
        (["--tracking-uri", "mlruns"], "there is no folder"),
        (["--tracking-uri", "htp://x"], "unknown scheme in 'htp://x'"),
        (["--port", "0"], "--port"),
        (["--optuna", "demo", "--tracking-uri", "sqlite:///x.db"], "name one of the two"),
        (["--prot", "5000"], "--port"),
    ],
)
def test_mistakes_are_told_in_one_line(
    flags: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert message in refused(["ui", *flags], monkeypatch, capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_servers_address_is_printed_without_credentials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:pw@host")
    assert run_main(["ui"], monkeypatch, capsys) == (None, "https://***@host\n", "")
