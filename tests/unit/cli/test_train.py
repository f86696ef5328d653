"""`train` on the command line: keys that a single configuration cannot have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from tests.support.command_line import refused
from tests.support.searching import write_search
from xlt_ray.cli.app import main
from xlt_ray.config.spec import SearchSpec


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
        (["--config", "demo", "--set", "search.target=0.9"], "--set search.target: train runs one"),
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


def test_every_seed_runs_whatever_ended_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_search(tmp_path)
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    tree["search"] |= {"target": 0.5, "time_budget": "1h", "confirmation": {"top": 1, "seeds": 2}}
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    launched: list[SearchSpec] = []
    monkeypatch.setattr("xlt_ray.cli.train.launch", lambda spec, *_: launched.append(spec) or 0)
    monkeypatch.setattr(sys, "argv", ["xlt-ray", "train", "--config", str(file), "--seeds", "3"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    (spec,) = launched
    assert (spec.search.comparison_seeds, spec.search.parameters, spec.search.baselines) == (
        3,
        {},
        (),
    )
    assert (spec.search.target, spec.search.time_budget) == (None, None)
    assert spec.search.confirmation.seeds == 0
