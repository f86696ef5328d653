"""`predict` on the command line: mistakes are one line, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import refused


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"--model": None}, "--model"),
        ({"--model": "nowhere"}, "model nowhere: there is no model in that folder"),
        ({"--input": "nowhere.tsv"}, "--input nowhere.tsv: there is no such file"),
        ({"--input": "texts.doc"}, "expected one of .tsv, .csv, .jsonl"),
        ({"--output": "answers.csv"}, "--output answers.csv: it must end in .tsv"),
        ({"--output": "folder.tsv"}, "it is a folder"),
        ({"--output": "nowhere/answers.tsv"}, "there is no folder"),
        ({"--inptu": "x"}, "--inptu"),
    ],
)
def test_mistakes_are_told_in_one_line(
    changed: dict[str, str | None],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("texts.tsv", "texts.doc"):
        Path(name).write_text("text\nhello\n")
    Path("folder.tsv").mkdir()
    before = sorted(tmp_path.rglob("*"))
    flags = {"--model": "model", "--input": "texts.tsv", "--output": "answers.tsv"} | changed
    words = [word for flag, value in flags.items() if value is not None for word in (flag, value)]
    assert told in refused(["predict", *words], monkeypatch, capsys)
    assert sorted(tmp_path.rglob("*")) == before
