"""What is said of a tracking store before anything is recorded in it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.errors import UserError
from xlt_ray.tracking.client import check_tracking
from xlt_ray.tracking.ui import ui_command
from xlt_ray.tracking.uri import redact

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


@pytest.mark.parametrize(
    ("uri", "part"),
    [
        ("", "no scheme"),
        ("localhost:5000", "write sqlite:///file.db"),
        ("htp://me:pw@host", "did you mean 'http'"),
        ("sqlite://runs.db", "names no database file"),
        ("sqlite:///:memory:", "names no database file"),
        ("sqlite:///{folder}/text.db", "not an SQLite database"),
        ("sqlite:///{folder}", "is a folder"),
        ("sqlite:///{folder}/text.db/runs.db", "is not a folder"),
        ("{folder}/text.db", "is not a folder"),
        ("http://", "names no host"),
        ("http://me:pw@host:port", "names no host"),
        ("http://me:pw@host?token=pw", "MLFLOW_TRACKING_TOKEN"),
        ("http://me:pw@127.0.0.1:9", "no MLflow server answers at http://***@127.0.0.1:9"),
        ("postgresql:///db", "names no host"),
    ],
)
def test_check_tells_a_wrong_uri_in_one_line(uri: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database at all")
    with pytest.raises(UserError) as raised:
        check_tracking(uri.format(folder=tmp_path))
    message = str(raised.value)
    assert part in message
    assert "pw" not in message
    assert "\n" not in message


def test_check_creates_nothing(tmp_path: Path) -> None:
    check_tracking(f"sqlite:///{tmp_path}/new/runs.db")
    check_tracking(f"{tmp_path}/runs")
    assert list(tmp_path.iterdir()) == []


def test_ui_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["mlflow", "ui", "--backend-store-uri"]
    assert shlex.split(ui_command("sqlite:///a b/runs.db")) == [
        *command,
        f"sqlite:///{tmp_path}/a b/runs.db",
    ]
    assert shlex.split(ui_command("runs")) == [
        "MLFLOW_ALLOW_FILE_STORE=true",
        *command,
        f"{tmp_path}/runs",
    ]
    assert ui_command("http://me:pw@host:5000") == "http://***@host:5000"
