"""Check and open MLflow tracking stores, and describe their errors without credentials."""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from xlt_ray.errors import UserError, brief, nearest
from xlt_ray.files import nearest_existing
from xlt_ray.tracking.uri import absolute, has_host, is_folder, local_path, redact, secrets

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_SCHEMES = ("sqlite", "http", "https", "file", "postgresql", "mysql", "mssql")
_CHECK_LIMIT_S = 5.0
_LONGEST_EXPERIMENT = 500
"""Longest name of an experiment in characters; MLflow refuses longer ones."""


def check_tracking(uri: str) -> None:
    """Check, without creating anything, that a search can be recorded at a URI.

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


def check_begun(uri: str) -> None:
    """Check that a local tracking store exists, since MLflow would create a missing one.

    Args:
        uri: MLflow tracking URI.

    Raises:
        UserError: The database or the folder does not exist.
    """
    folder = is_folder(uri)
    if (folder or uri.startswith("sqlite")) and not local_path(uri).exists():
        raise UserError(
            f"tracking URI: there is no {'folder' if folder else 'database'} {local_path(uri)} "
            "yet; run a search, or name another store by --tracking-uri"
        )


def check_experiment(uri: str, name: str) -> None:
    """Check that MLflow takes an experiment: its name is not too long, and it was not deleted.

    Args:
        uri: MLflow tracking URI that :func:`check_tracking` has checked.
        name: Name of the experiment; it need not exist.

    Raises:
        UserError: The name is too long, or the experiment was deleted.
    """
    if len(name) > _LONGEST_EXPERIMENT:
        raise UserError(
            f"--experiment {brief(name)}: a name of {len(name)} characters; MLflow takes at most "
            f"{_LONGEST_EXPERIMENT}"
        )
    is_local = is_folder(uri) or uri.startswith("sqlite")
    if is_local and not local_path(uri).exists():
        return
    try:
        found = open_client(uri).get_experiment_by_name(name)
    except Exception:
        # The recorder waits for a store that cannot be read now, and reports it.
        return
    if found is not None and found.lifecycle_stage == "deleted":
        raise UserError(deleted_experiment(name, str(found.experiment_id), uri))


def deleted_experiment(name: str, number: str, uri: str) -> str:
    """Return that an experiment was deleted, and the two ways out.

    Args:
        name: Its name.
        number: Its id.
        uri: MLflow tracking URI.
    """
    store = shlex.quote(redact(absolute(uri)))
    permit = "MLFLOW_ALLOW_FILE_STORE=true " if is_folder(uri) else ""
    return (
        f"MLflow experiment '{name}': it was deleted; restore it with `{permit}"
        f"MLFLOW_TRACKING_URI={store} mlflow experiments restore --experiment-id {number}`, "
        "or give another name with --experiment"
    )


def tagged_experiments(uri: str, tag: str) -> dict[str, str]:
    """Return the experiments with a tag, latest first.

    Args:
        uri: MLflow tracking URI.
        tag: Name of the tag.

    Returns:
        MLflow's ids by experiment name; empty for a store that MLflow cannot read.
    """
    try:
        found = open_client(uri).search_experiments(order_by=["last_update_time DESC"])
    except Exception:
        return {}
    return {one.name: str(one.experiment_id) for one in found if tag in one.tags}


def open_client(uri: str) -> MlflowClient:
    """Return a client that prints nothing and does not retry; callers retry themselves.

    The folder of an SQLite database is created if there is none.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if is_folder(uri):
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    elif uri.startswith("sqlite"):
        local_path(uri).parent.mkdir(parents=True, exist_ok=True)
    from mlflow.tracking import MlflowClient

    for name in ("alembic", "mlflow.store.db"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(uri)


def in_one_line(error: Exception, uri: str) -> str:
    """Return an error of MLflow in one line, without the credentials of the URI."""
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import Timeout as NoAnswer

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NoConnection | NoAnswer):
            return f"no MLflow server answers at {redact(uri)}"
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split()) or type(error).__name__
    for secret in secrets(uri):
        text = text.replace(secret, "***")
    return text if len(text) <= 300 else text[:299] + "…"


def _check_server(uri: str) -> None:
    import requests
    from mlflow.utils.credentials import get_default_host_creds

    if not has_host(uri):
        raise UserError(f"tracking URI: '{redact(uri)}' names no host; write http://host:port")
    if "?" in uri or "#" in uri:
        raise UserError(
            f"tracking URI: '{redact(uri)}' has a query, which MLflow cannot send; "
            "put a token into the environment variable MLFLOW_TRACKING_TOKEN"
        )
    # As MLflow's own requests do: an https server may have a certificate of its own.
    given = get_default_host_creds(uri)
    try:
        answer = requests.get(
            uri.rstrip("/") + "/health",
            timeout=_CHECK_LIMIT_S,
            verify=given.verify,
            cert=given.client_cert_path,
        )
    except requests.exceptions.SSLError as error:
        raise UserError(
            f"tracking URI: the certificate of {redact(uri)} is not trusted; name it in the "
            "environment variable MLFLOW_TRACKING_SERVER_CERT_PATH"
        ) from error
    except requests.RequestException as error:
        raise UserError(f"tracking URI: no MLflow server answers at {redact(uri)}") from error
    if answer.status_code == 404 or answer.status_code >= 500:
        raise UserError(
            f"tracking URI: {redact(uri)} answers /health with {answer.status_code}; "
            "an MLflow server would answer 200"
        )


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
    existing = nearest_existing(folder)
    if not existing.is_dir():
        raise UserError(f"tracking URI: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"tracking URI: the folder {existing} cannot be written")
