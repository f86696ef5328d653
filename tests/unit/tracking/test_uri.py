"""Tracking URIs: hidden credentials, local paths, and the default."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from xlt_ray.tracking.uri import (
    absolute,
    default_tracking_uri,
    has_host,
    is_folder,
    is_server,
    local_path,
    redact,
    secrets,
)

SECRET = st.text(st.sampled_from("SECRET/@:?#&=%. \n"), min_size=1)
PLAIN = st.text(st.sampled_from("abc-_."), min_size=1)


@given(
    scheme=st.sampled_from(["http", "https", "postgresql", "mysql+pymysql", "nonsense"]),
    user=SECRET | st.just(""),
    password=SECRET,
    host=PLAIN,
    path=PLAIN,
    token=SECRET | st.none(),
)
def test_redact_leaves_no_letter_of_a_secret(
    scheme: str, user: str, password: str, host: str, path: str, token: str | None
) -> None:
    uri = f"{scheme}://{user}:{password}@{host}/{path}"
    if token is not None:
        uri += f"?token={token}"
    shown = redact(uri)
    assert not any(letter.isupper() for letter in shown)
    assert shown.startswith(f"{scheme}://")
    assert redact(shown) == shown


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://host:5000/path", "http://host:5000/path"),
        ("http://me:pw@host:5000/path", "http://***@host:5000/path"),
        ("https://host/?token=abc", "https://host/?***"),
        ("sqlite:////home/me@work/runs.db", "sqlite:////home/me@work/runs.db"),
        ("results/me@work", "results/me@work"),
        ("sqlite:////home/run#1/runs.db?key=pw", "sqlite:////home/run#1/runs.db?***"),
        ("me:pw@host/path", "***@host/path"),
        ("host:5000?token=pw", "host:5000?***"),
        ("me:pw@http://host", "***"),
        ("http:///me:pw@host", "http://***@host"),
    ],
)
def test_redact_keeps_what_is_no_secret(uri: str, shown: str) -> None:
    assert redact(uri) == shown


@given(
    user=st.text(st.sampled_from("SECRT"), min_size=1),
    password=st.text(st.sampled_from("0123"), min_size=1),
)
def test_secrets_are_what_redact_hides(user: str, password: str) -> None:
    uri = f"http://{user}:{password}@host/path?token=t%20k"
    found = secrets(uri)
    assert {user, password, "t k"} <= set(found)
    assert [len(secret) for secret in found] == sorted(map(len, found), reverse=True)
    assert not any(secret in redact(uri) for secret in found)


def test_the_default_is_the_environments_then_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_tracking_uri() == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    assert default_tracking_uri() == "http://host"
    assert default_tracking_uri("runs") == "runs"


def test_local_uris_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///a.db?timeout=5") == f"sqlite:///{tmp_path}/a.db?timeout=5"
    assert absolute("runs") == f"{tmp_path}/runs"
    assert absolute("http://host:5000") == "http://host:5000"
    assert local_path(f"file://{tmp_path}/a%20b") == tmp_path / "a b"


def test_any_working_folder_has_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "50% off? #1 %41"
    folder.mkdir()
    monkeypatch.chdir(folder)
    uri = absolute("sqlite:///mlflow.db?timeout=5")
    assert absolute(uri) == uri
    assert local_path(uri) == folder / "mlflow.db"
    # SQLAlchemy is what opens the database.
    create_engine(uri).connect().close()
    assert (folder / "mlflow.db").is_file()


def test_kinds_of_stores() -> None:
    assert is_server("https://host") and not is_server("sqlite:///a.db")
    assert is_folder("runs") and is_folder("file:///runs") and not is_folder("http://host")
    assert has_host("http://host:5000") and not has_host("http://")
    assert not has_host("http://host:0") and not has_host("http://host:x")
