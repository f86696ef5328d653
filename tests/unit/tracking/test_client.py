"""Checks of a tracking store before anything is recorded in it."""

from __future__ import annotations

import os
import shlex
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from requests.exceptions import ConnectionError as NoConnection

from xlt_ray.errors import UserError
from xlt_ray.tracking.client import (
    check_begun,
    check_experiment,
    check_tracking,
    in_one_line,
    open_client,
)


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


def test_a_local_store_must_exist_to_be_read(tmp_path: Path) -> None:
    for uri, kind in ((f"sqlite:///{tmp_path}/a.db", "database"), (f"{tmp_path}/runs", "folder")):
        with pytest.raises(UserError, match=f"there is no {kind}"):
            check_begun(uri)
        Path(uri.removeprefix("sqlite:///")).touch()
        check_begun(uri)


def test_a_name_that_mlflow_refuses_is_told_before(tmp_path: Path) -> None:
    check_experiment(f"sqlite:///{tmp_path}/runs.db", "x" * 500)
    with pytest.raises(UserError, match="501 characters; MLflow takes at most 500"):
        check_experiment(f"sqlite:///{tmp_path}/runs.db", "x" * 501)


def test_a_deleted_experiment_is_told_with_the_command_that_restores_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/my runs.db"
    check_experiment(uri, "demo")
    assert list(tmp_path.iterdir()) == []
    client = open_client(uri)
    number = client.create_experiment("demo")
    check_experiment(uri, "demo")
    client.delete_experiment(number)
    check_experiment(uri, "other")
    with pytest.raises(UserError, match="or give another name with --experiment") as raised:
        check_experiment(uri, "demo")
    command = str(raised.value).split("`")[1]
    assert "\n" not in str(raised.value)
    setting, program, *arguments = shlex.split(command)
    assert program == "mlflow"
    subprocess.run(
        [sys.executable, "-m", "mlflow", *arguments],
        env=os.environ | dict([setting.split("=", 1)]),
        check=True,
        capture_output=True,
    )
    check_experiment(uri, "demo")


def test_an_error_is_one_line_without_credentials() -> None:
    uri = "http://me:pw123@host:5000"
    assert in_one_line(RuntimeError(f"bad\n answer of {uri}"), uri) == "bad answer of ***"
    assert in_one_line(ValueError(), uri) == "ValueError"
    assert len(in_one_line(RuntimeError("x" * 1000), uri)) == 300
    wrapped = RuntimeError("a page of text")
    wrapped.__cause__ = NoConnection("pw123")
    assert in_one_line(wrapped, uri) == "no MLflow server answers at http://***@host:5000"


@pytest.fixture
def https_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server that answers /health, and the certificate that it signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    own = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    certificate, both = tmp_path / "certificate.pem", tmp_path / "server.pem"
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    both.write_bytes(own + certificate.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("localhost", 0), Healthy) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_address[1]}", certificate
        server.shutdown()


def test_a_server_may_have_a_certificate_of_its_own(
    https_server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, certificate = https_server
    with pytest.raises(UserError, match="not trusted; name it in the environment"):
        check_tracking(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    check_tracking(uri)
