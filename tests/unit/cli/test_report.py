"""`report` on the command line: flags that exclude each other, and places that do not exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--search FOLDER is missing"),
        (["--search", "x", "--tracking-uri", "http://x"], "--tracking-uri goes with --experiment"),
        (["--search", "searched", "--experiment", "e"], "it is a folder, and --experiment asks"),
        (["--search", "nowhere"], "--search nowhere"),
        (["--experiment", "e", "--output", "nowhere/report.html"], "there is no folder"),
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
    Path("searched").mkdir()
    Path("searched/search.yaml").write_text("name: x\n")
    before = sorted(tmp_path.rglob("*"))
    assert message in refused(["report", *flags], monkeypatch, capsys)
    assert sorted(tmp_path.rglob("*")) == before
