"""Addresses of Ray clusters are checked before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlt_ray.errors import UserError
from xlt_ray.pipeline.settings import (
    RunSettings,
    check_address,
    keep_places,
    storage_of,
    tracking_of,
)


@pytest.mark.parametrize(
    "address",
    [None, "", "auto", "local", "10.0.0.1:6379", "[::1]:6379", "head:65535"],
)
def test_valid_addresses(address: str | None) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "address",
    ["head", "head:0", "head:65536", "a b:6379", "http://head:8265", "head:", "ray://head:10001"],
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
    keep_places(RunSettings(None, "runs", "http://host:5000", "mine"), tmp_path)
    assert tracking_of(tmp_path, None, None, "demo") == ("http://host:5000", "mine")
    # A database is found from another working folder too.
    monkeypatch.chdir(tmp_path)
    keep_places(RunSettings(None, "runs", default, "mine"), tmp_path)
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
    keep_places(RunSettings(None, "runs", uri, "mine"), tmp_path)
    assert all("secret" not in file.read_text() for file in tmp_path.rglob("*.json"))
    with pytest.raises(UserError, match="--tracking-uri is missing"):
        tracking_of(tmp_path, None, None, "demo")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_of(tmp_path, None, None, "demo") == (uri, "mine")


BUCKET = "s3://bucket/runs"


def test_a_resumed_search_keeps_its_storage(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "demo-1"
    (folder / "state").mkdir(parents=True)
    assert storage_of(None, BUCKET) == BUCKET
    # Of earlier versions, which did not write it down.
    for kept in ({}, {"uri": "sqlite:///mlflow.db", "experiment": "mine"}):
        (folder / "state" / "tracking.json").write_text(json.dumps(kept))
        assert storage_of(folder, "runs") == str(folder.parent)
        assert storage_of(folder, BUCKET) == BUCKET
    keep_places(RunSettings(None, BUCKET, "sqlite:///mlflow.db", "mine"), folder)
    assert storage_of(folder, "runs") == BUCKET
    assert storage_of(folder, BUCKET) == BUCKET
    assert storage_of(folder, f"{BUCKET}/") == BUCKET
    with pytest.raises(UserError, match=r"keeps its checkpoints in s3://bucket/runs; leave"):
        storage_of(folder, "gs://other/runs")
    with pytest.raises(UserError, match="must hold no credentials") as raised:
        storage_of(folder, "s3://me:secret@bucket/runs")
    assert "secret" not in str(raised.value)
    # What is stored on this machine moves with the folder.
    keep_places(RunSettings(None, str(folder.parent), "sqlite:///mlflow.db", "mine"), folder)
    moved = folder.rename(tmp_path / "demo-1")
    assert storage_of(moved, "runs") == str(tmp_path)
    with pytest.raises(UserError, match=r"\$XLT_RAY_STORAGE out"):
        storage_of(moved, BUCKET)
