"""`predict` on the command line: mistakes in one line; `search` is what it is without that word."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from xlt_ray.cli.app import main


def run(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int | str | None, str, str]:
    monkeypatch.setattr(sys, "argv", ["xlt-ray", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


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
    code, output, errors = run(["predict", *words], monkeypatch, capsys)
    assert code == 2 and output == ""
    assert errors.startswith("error: ") and len(errors.splitlines()) == 1
    assert told in errors
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("flags", [["--list"], ["--search", "dmo"], []])
def test_search_may_be_said_or_not(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["search", *flags], monkeypatch, capsys) == run(flags, monkeypatch, capsys)
