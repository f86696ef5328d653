"""MLflow's user interface for a tracking store."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from typing import NoReturn

from xlt_ray.errors import UserError
from xlt_ray.tracking.client import check_begun
from xlt_ray.tracking.uri import absolute, is_folder, is_server, redact

UI_ADDRESS = "http://127.0.0.1:5000"
"""Where `mlflow ui` has its pages unless it is told otherwise."""


def ui_command(uri: str) -> str:
    """Tell how to look at a tracking store.

    Args:
        uri: MLflow tracking URI.

    Returns:
        A shell command that opens the MLflow user interface at this store, from any folder; for
        a tracking server, its address. Credentials are hidden.
    """
    if is_server(uri):
        return redact(uri)
    # MLflow opens plain folders only on explicit demand.
    permit = "MLFLOW_ALLOW_FILE_STORE=true " if is_folder(uri) else ""
    return f"{permit}mlflow ui --backend-store-uri {shlex.quote(redact(absolute(uri)))}"


def check_ui(uri: str, port: int) -> None:
    """Check that :func:`serve_ui` can show a tracking store.

    Args:
        uri: MLflow tracking URI of a database or a folder.
        port: Port on the loopback address.

    Raises:
        UserError: Nothing was recorded there yet, or the port is in use.
    """
    check_begun(uri)
    try:
        with socket.socket() as probe:
            # As the server does: a port that was in use a moment ago is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError:
        raise UserError(f"--port {port}: it cannot be had on this machine; try another") from None


def serve_ui(uri: str, port: int) -> NoReturn:
    """Become MLflow's user interface, for this machine only; arguments as of :func:`check_ui`."""
    # In the environment, for every user of the machine sees the arguments of a process.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = absolute(uri)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if is_folder(uri):
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    # One person looks: one worker starts sooner than four.
    command = ["-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, *command])
