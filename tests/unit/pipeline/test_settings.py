"""Addresses of Ray clusters are checked before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlt_ray.errors import UserError
from xlt_ray.pipeline.settings import RunSettings, check_address, keep_tracking, tracking_of


@pytest.mark.parametrize(
    "address",
    [None, "", "auto", "local", "10.0.0.1:6379", "ray://head:10001", "[::1]:6379", "head:65535"],
)
def test_valid_addresses(address: str | None) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "address", ["head", "head:0", "head:65536", "a b:6379", "http://head:8265", "head:"]
)
def test_invalid_addresses(address: str) -> None:
    with pytest.raises(UserError, match="--address"):
        check_address(address)


def test_a_resumed_search_is_recorded_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    default = "sqlite:///mlflow.db"
    # A new search, and a folder of an earlier version.
    assert tracking_of(None, None, None, "demo") == (default, "demo")
    assert tracking_of(tmp_path, None, None, "demo") == (default, "demo")
    keep_tracking(RunSettings(None, "runs", "http://host:5000", "mine"), tmp_path)
    assert tracking_of(tmp_path, None, None, "demo") == ("http://host:5000", "mine")
    # A database is found from another working folder too.
    monkeypatch.chdir(tmp_path)
    keep_tracking(RunSettings(None, "runs", default, "mine"), tmp_path)
    assert tracking_of(tmp_path, None, None, "demo") == (default, "mine")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert tracking_of(tmp_path, None, None, "demo") == (f"sqlite:///{tmp_path}/mlflow.db", "mine")
    # What is typed comes first.
    assert tracking_of(tmp_path, default, "other", "demo") == (default, "other")


def test_credentials_are_not_kept_but_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = "http://me:secret@host:5000"
    keep_tracking(RunSettings(None, "runs", uri, "mine"), tmp_path)
    assert all("secret" not in file.read_text() for file in tmp_path.rglob("*.json"))
    with pytest.raises(UserError, match="--tracking-uri is missing"):
        tracking_of(tmp_path, None, None, "demo")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_of(tmp_path, None, None, "demo") == (uri, "mine")
