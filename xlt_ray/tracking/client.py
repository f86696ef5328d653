"""A tracking store of MLflow, named by its URI: checked, opened, shown, and never quoted with its
credentials."""

from __future__ import annotations

import logging
import os
import re
import shlex
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from xlt_ray.errors import UserError, nearest

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

UI_ADDRESS = "http://127.0.0.1:5000"
"""Where `mlflow ui` has its pages unless it is told otherwise."""

_SCHEMES = ("sqlite", "http", "https", "file", "postgresql", "mysql", "mssql")
_CHECK_LIMIT_S = 5.0


def redact(uri: str) -> str:
    """Hide the credentials of a URI.

    Args:
        uri: Any URI, also a malformed one.

    Returns:
        The URI with the user information, the query and the fragment replaced by ``***``. When
        in doubt too much is hidden, e.g. all up to the last ``@`` since a password may hold one.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        place = re.sub(r"\?.*", "?***", uri, count=1, flags=re.DOTALL)
        user, at, host = place.rpartition("@")
        return f"***@{host}" if at and ":" in user else place
    if not re.fullmatch(r"[a-z0-9+.-]+", scheme):
        return "***"
    is_local = scheme.startswith(("sqlite", "file")) and rest.startswith("/")
    # In the path of a local file "@" and "#" are ordinary characters.
    place, *query = re.split(r"(\?)" if is_local else r"([?#])", rest, maxsplit=1)
    if not is_local:
        if query and "@" in query[1]:
            return f"{scheme}://***"
        if "@" in place:
            place = "***@" + place.rpartition("@")[2]
    return f"{scheme}://{place}{query[0]}***" if query else f"{scheme}://{place}"


def check_tracking(uri: str) -> None:
    """Check, without creating anything, that a search could be recorded at a URI.

    Args:
        uri: MLflow tracking URI.

    Raises:
        UserError: The URI is malformed, its scheme is unknown, its folder cannot be written, or
            its server does not answer within a few seconds.
    """
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.partition("+")[0]
    if separator and scheme not in _SCHEMES:
        raise UserError(
            f"tracking URI: unknown scheme in '{redact(uri)}'{nearest(scheme, _SCHEMES)}"
        )
    if not uri or (not separator and ":" in uri):
        raise UserError(
            f"tracking URI: '{redact(uri)}' has no scheme; write sqlite:///file.db, "
            "http://host:port or the path of a folder"
        )
    if scheme in ("http", "https"):
        _check_server(uri)
    elif scheme == "sqlite":
        if not rest.startswith("/") or rest in ("/", "/:memory:"):
            raise UserError(
                f"tracking URI: '{redact(uri)}' names no database file; "
                "write sqlite:///relative/file.db or sqlite:////absolute/file.db"
            )
        _check_database(local_path(uri))
    elif not separator or scheme == "file":
        _check_folder(local_path(uri))
    elif not urlsplit(uri).hostname:
        raise UserError(f"tracking URI: '{redact(uri)}' names no host")


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


def check_begun(uri: str) -> None:
    """Check that there is a tracking store: MLflow would make one.

    Raises:
        UserError: Its database or its folder does not exist.
    """
    folder = is_folder(uri)
    if (folder or uri.startswith("sqlite")) and not local_path(uri).exists():
        raise UserError(
            f"tracking URI: there is no {'folder' if folder else 'database'} {local_path(uri)} "
            "yet; a search makes it, and --tracking-uri names another"
        )


def tagged_experiments(uri: str, tag: str) -> dict[str, str]:
    """Names of the experiments that carry a tag, the latest first, with MLflow's ids.

    None are found in a store that MLflow cannot read.
    """
    try:
        found = open_client(uri).search_experiments(order_by=["last_update_time DESC"])
    except Exception:
        return {}
    return {one.name: str(one.experiment_id) for one in found if tag in one.tags}


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


def open_client(uri: str) -> MlflowClient:
    """Make a client that is quiet and tries once: when to try again is the caller's affair."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if is_folder(uri):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    for name in ("alembic", "mlflow.store.db"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(uri)


def in_one_line(error: Exception, uri: str) -> str:
    """Describe an error of MLflow without the credentials of its URI."""
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import Timeout as NoAnswer

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NoConnection | NoAnswer):
            return f"no MLflow server answers at {redact(uri)}"
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split()) or type(error).__name__
    for secret in _secrets(uri):
        text = text.replace(secret, "***")
    return text if len(text) <= 300 else text[:299] + "…"


def _secrets(uri: str) -> list[str]:
    """List what :func:`redact` hides in a URI, longest first."""
    user, _, password = uri.partition("://")[2].rpartition("@")[0].partition(":")
    query = uri.partition("?")[2]
    found = {uri, user, password, query, *(value for _, value in parse_qsl(query))}
    found |= {unquote(secret) for secret in found}
    visible = redact(uri)
    return sorted((s for s in found if s and s not in visible), key=len, reverse=True)


def _check_server(uri: str) -> None:
    import requests

    if not _has_host(uri):
        raise UserError(f"tracking URI: '{redact(uri)}' names no host; write http://host:port")
    if "?" in uri or "#" in uri:
        raise UserError(
            f"tracking URI: '{redact(uri)}' has a query, which MLflow cannot send; "
            "put a token into the environment variable MLFLOW_TRACKING_TOKEN"
        )
    try:
        answer = requests.get(uri.rstrip("/") + "/health", timeout=_CHECK_LIMIT_S)
    except requests.RequestException as error:
        raise UserError(f"tracking URI: no MLflow server answers at {redact(uri)}") from error
    if answer.status_code == 404 or answer.status_code >= 500:
        raise UserError(
            f"tracking URI: {redact(uri)} answers /health with {answer.status_code}; "
            "an MLflow server would answer 200"
        )


def _has_host(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _check_database(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(16)
        if head and head != b"SQLite format 3\0":
            raise UserError(f"tracking URI: {path} exists and is not an SQLite database")
        if not os.access(path, os.W_OK):
            raise UserError(f"tracking URI: {path} cannot be written")
    elif path.exists():
        raise UserError(f"tracking URI: {path} is a folder; name a file in it")
    _check_folder(path.parent)


def _check_folder(folder: Path) -> None:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"tracking URI: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"tracking URI: the folder {existing} cannot be written")


def is_server(uri: str) -> bool:
    """Tell whether a store is an MLflow server, which has pages of its own."""
    return uri.startswith(("http://", "https://"))


def is_folder(uri: str) -> bool:
    """Tell whether a store is a folder of files."""
    return "://" not in uri or uri.startswith("file:")


def local_path(uri: str) -> Path:
    """Return the absolute path of an SQLite file or of a folder."""
    if uri.startswith("sqlite"):
        return Path(uri.partition(":///")[2].partition("?")[0]).absolute()
    return Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri).absolute()


def absolute(uri: str) -> str:
    """Make a local URI independent of the working folder."""
    if uri.startswith("sqlite:///"):
        _, mark, query = uri.partition("?")
        return f"sqlite:///{local_path(uri)}{mark}{query}"
    return str(local_path(uri)) if "://" not in uri else uri
