"""Parse MLflow tracking URIs, make them absolute, and hide their credentials."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit


def default_tracking_uri(uri: str | None = None) -> str:
    """Return a tracking URI, or its default.

    Args:
        uri: MLflow tracking URI; None for the default.

    Returns:
        `uri`, else `$MLFLOW_TRACKING_URI`, else a database in the working folder.
    """
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"


def redact(uri: str) -> str:
    """Hide the credentials of a URI.

    Args:
        uri: Any URI, also a malformed one.

    Returns:
        The URI with user information, query and fragment replaced by ``***``. In doubt, the
        function hides too much: e.g. everything up to the last ``@``, which a password may contain.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        place = re.sub(r"\?.*", "?***", uri, count=1, flags=re.DOTALL)
        user, at, host = place.rpartition("@")
        return f"***@{host}" if at and ":" in user else place
    if not re.fullmatch(r"[a-z0-9+.-]+", scheme):
        return "***"
    is_local = scheme.startswith(("sqlite", "file")) and rest.startswith("/")
    # "@" and "#" are ordinary characters in the path of a local file.
    place, *query = re.split(r"(\?)" if is_local else r"([?#])", rest, maxsplit=1)
    if not is_local:
        if query and "@" in query[1]:
            return f"{scheme}://***"
        if "@" in place:
            place = "***@" + place.rpartition("@")[2]
    return f"{scheme}://{place}{query[0]}***" if query else f"{scheme}://{place}"


def secrets(uri: str) -> list[str]:
    """Return the parts of a URI that :func:`redact` hides, longest first."""
    user, _, password = uri.partition("://")[2].rpartition("@")[0].partition(":")
    query = uri.partition("?")[2]
    found = {uri, user, password, query, *(value for _, value in parse_qsl(query))}
    found |= {unquote(secret) for secret in found}
    visible = redact(uri)
    return sorted((s for s in found if s and s not in visible), key=len, reverse=True)


def has_host(uri: str) -> bool:
    """Tell whether a URI names a host, with a valid port if it names one."""
    try:
        parts = urlsplit(uri)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def is_server(uri: str) -> bool:
    """Tell whether a store is an MLflow server, which serves its own pages."""
    return uri.startswith(("http://", "https://"))


def is_folder(uri: str) -> bool:
    """Tell whether a store is a folder of files."""
    return "://" not in uri or uri.startswith("file:")


def local_path(uri: str) -> Path:
    """Return the absolute path of an SQLite file or of a folder."""
    if uri.startswith("sqlite"):
        # SQLAlchemy decodes %XX in the path of a database.
        return Path(unquote(uri.partition(":///")[2].partition("?")[0])).absolute()
    return Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri).absolute()


def absolute(uri: str) -> str:
    """Make a local URI independent of the working folder, whose name may have any characters."""
    if uri.startswith("sqlite") and ":///" in uri:
        scheme = uri.partition(":///")[0]
        _, mark, query = uri.partition("?")
        path = str(local_path(uri))
        quoted = re.sub("[%?]", lambda found: quote(found[0]), path)
        if quoted != path:
            # MLflow would create a folder of the quoted name if the scheme named no driver.
            scheme = "sqlite+pysqlite"
        return f"{scheme}:///{quoted}{mark}{query}"
    return str(local_path(uri)) if "://" not in uri else uri
