"""The start of a search: every setting is checked before data, model and cluster."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from xlt_ray.config.loading import load_spec
from xlt_ray.errors import UserError
from xlt_ray.pipeline.settings import RunSettings
from xlt_ray.pipeline.start import checked_plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"address": "nonsense"}, "--address nonsense: "),
        ({"storage": "gopher://bucket"}, "gopher"),
        ({"storage": "/proc/runs"}, "--storage /proc/runs: cannot be written to"),
        ({"experiment": "x" * 600}, "MLflow takes at most 500"),
        ({"tracking_uri": "htp://host"}, "unknown scheme in 'htp://host'"),
    ],
)
def test_wrong_settings_are_told_and_nothing_is_written(
    changes: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # The model does not exist either, which a later check would tell.
    spec = load_spec("demo", {"model": "nowhere"})
    settings = replace(RunSettings(None, "runs", "sqlite:///mlflow.db", "demo"), **changes)
    with pytest.raises(UserError) as raised:
        checked_plan(spec, settings)
    assert message in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_the_environments_address_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:99999")
    settings = RunSettings(None, "runs", "sqlite:///mlflow.db", "demo")
    with pytest.raises(UserError, match=r"--address 127\.0\.0\.1:99999"):
        checked_plan(load_spec("demo"), settings)


def test_a_folder_whose_name_is_not_utf_8_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/K\xfcche"))
    settings = RunSettings(None, str(odd), "sqlite:///mlflow.db", "demo")
    with pytest.raises(UserError, match=r"--storage .*/K\ufffdche: its name is not UTF-8"):
        checked_plan(load_spec("demo"), settings)
    odd.mkdir()
    monkeypatch.chdir(odd)
    settings = RunSettings(None, "runs", "sqlite:///mlflow.db", "demo")
    with pytest.raises(UserError, match=r"the working folder .*/K\ufffdche: its name is not UTF-8"):
        checked_plan(load_spec("demo"), settings)
