"""`train` on the command line: keys that a single configuration cannot have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "Missing option '--config'"),
        (["--config", "dmo"], "did you mean 'demo'?"),
        (["--config", "demo", "--seeds", "0"], "--seeds 0: at least one seed is needed"),
        (["--config", "demo", "--seeds", "x"], "--seeds"),
        (
            ["--config", "demo", "--set", "search.num_trials=2"],
            "--set search.num_trials: train runs one configuration only",
        ),
        (["--config", "demo", "--set", "search.baselines=[plain]"], "--set search.baselines: "),
        (
            ["--config", "demo", "--set", "search.comparison_seeds=2"],
            "--set search.comparison_seeds: another flag sets this key too",
        ),
        (
            ["--config", "demo", "--languages", "de", "--set", "target_languages=[de]"],
            "--set target_languages: another flag sets this key too",
        ),
        (["--config", "demo", "--languages", "de,"], "'' is no code of a language"),
        (["--config", "demo", "--address", "nonsense"], "--address nonsense: "),
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
    assert message in refused(["train", *flags], monkeypatch, capsys)
    assert list(tmp_path.iterdir()) == []
