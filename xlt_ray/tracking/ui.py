"""MLflow's pages for a tracking store; `xlt-ray ui` and the pipeline call it."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from typing import NoReturn

from xlt_ray.errors import UserError
from xlt_ray.tracking.uri import absolute, is_folder, is_server, redact

UI_ADDRESS = "http://127.0.0.1:5000"
"""Default address of `mlflow ui`."""


def ui_command(uri: str) -> str:
    """Return the command or the address that shows a tracking store.

    Args:
        uri: MLflow tracking URI.

    Returns:
        A shell command that serves the store's pages from any working folder; for a tracking
        server, its address. Credentials are hidden.
    """
    if is_server(uri):
        return redact(uri)
    # MLflow opens a folder only with this variable.
    permit = "MLFLOW_ALLOW_FILE_STORE=true " if is_folder(uri) else ""
    return f"{permit}mlflow ui --backend-store-uri {shlex.quote(redact(absolute(uri)))}"


def check_port(port: int) -> None:
    """Check that a port of this machine can be served.

    Args:
        port: Port on the loopback address.

    Raises:
        UserError: The port is in use.
    """
    try:
        with socket.socket() as probe:
            # Like the server, so that a port that was released a moment ago counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except OSError:
        raise UserError(f"--port {port}: not available on this machine; try another port") from None


def serve_ui(uri: str, port: int) -> NoReturn:
    """Replace this process by MLflow's user interface, reachable from this machine only.

    Args:
        uri: MLflow tracking URI of a database or a folder.
        port: Port on the loopback address.
    """
    # In the environment, since all users of the machine see the arguments of a process.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = absolute(uri)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if is_folder(uri):
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    # One worker serves one person, and starts faster than the default four.
    command = ["-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, *command])
