"""The command that shows a tracking store, and its checks."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path

import pytest

from xlt_ray.errors import UserError
from xlt_ray.tracking.ui import check_port, ui_command


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


def test_a_port_must_be_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: "):
            check_port(port)
    check_port(port)
