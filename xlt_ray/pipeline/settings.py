"""Settings of a search that do not change its result. The CLI and the API make them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlt_ray.errors import UserError, brief
from xlt_ray.files import json_text, write_whole
from xlt_ray.names import STATE
from xlt_ray.storage import check_storage, is_remote
from xlt_ray.tracking.uri import absolute, default_tracking_uri, redact

_TRACKING = f"{STATE}/tracking.json"
"""File in a search's folder: where MLflow has its runs, without credentials, and where its
checkpoints are."""


@dataclass(frozen=True)
class RunSettings:
    """Where a search runs, stores its checkpoints and is recorded."""

    address: str | None
    """The Ray cluster to join; None: $RAY_ADDRESS, else a local cluster that ends with the
    search."""
    storage: str
    """Folder or URI for checkpoints and search state."""
    tracking_uri: str
    """MLflow tracking URI."""
    experiment: str
    """MLflow experiment."""


def keep_places(settings: RunSettings, folder: Path) -> None:
    """Write down where a search is recorded and stored.

    :func:`tracking_of` and :func:`storage_of` read it when the search is resumed.

    Args:
        settings: The settings.
        folder: The search's folder.
    """
    kept = {
        "uri": redact(absolute(settings.tracking_uri)),
        "experiment": settings.experiment,
        # A local storage is the folder above, wherever that is moved.
        "storage": settings.storage if is_remote(settings.storage) else None,
    }
    (folder / STATE).mkdir(parents=True, exist_ok=True)
    write_whole(folder / _TRACKING, json_text(kept))


def tracking_of(
    folder: Path | None, uri: str | None, experiment: str | None, name: str
) -> tuple[str, str]:
    """Return the tracking URI and the experiment of a search.

    What the user typed comes first. Otherwise, a resumed search keeps its store and its experiment,
    and a new one gets the default store and an experiment with its own name.

    Args:
        folder: The folder of the search to resume; None: a new search.
        uri: The tracking URI that the user typed; None: none.
        experiment: The experiment that the user typed; None: none.
        name: The name of the search.

    Raises:
        UserError: If the search was recorded at a URI with credentials. They are not written down,
            so the user has to type the URI again or set $MLFLOW_TRACKING_URI.
    """
    kept = _places(folder)
    experiment = experiment or kept.get("experiment", name)
    default = default_tracking_uri(uri)
    before = kept.get("uri")
    if uri is not None or before is None or redact(absolute(default)) == before:
        return default, experiment
    if "***" in before:
        raise UserError(
            f"--tracking-uri is missing: the search is recorded at {before}, and its credentials "
            "are not kept"
        )
    return before, experiment


def storage_of(folder: Path | None, storage: str) -> str:
    """Return the storage of a search's checkpoints.

    A resumed search keeps its storage, because its trials go on from their checkpoints.

    Args:
        folder: The folder of the search to resume; None: a new search.
        storage: The storage that the user typed, or the default.

    Raises:
        UserError: If the user typed a malformed URI or that of another storage.
    """
    if folder is None:
        return storage
    places = _places(folder)
    if "storage" not in places:
        # Begun by a version that did not write it down.
        return storage if is_remote(storage) else str(folder.parent)
    before = places["storage"] or str(folder.parent)
    if is_remote(storage):
        check_storage(storage)
        if storage.rstrip("/") != before.rstrip("/"):
            raise UserError(
                f"--storage {storage}: the search keeps its checkpoints in {before}; leave the "
                "flag and $XLT_RAY_STORAGE out"
            )
    return before


def _places(folder: Path | None) -> dict[str, Any]:
    """Return what is written down of a search's places; empty for a new search."""
    if folder is None or not (folder / _TRACKING).is_file():
        return {}
    kept: dict[str, Any] = json.loads((folder / _TRACKING).read_text(encoding="utf-8"))
    return kept


def check_address(address: str | None) -> None:
    """Check the form of a Ray cluster's address.

    Raises:
        UserError: If it is neither `auto` nor a host and a port, or that of a Ray client.
    """
    if not address or address in ("auto", "local"):
        return
    if address.startswith("ray://"):
        # Tune's callbacks would run on the head node, without the files of the search.
        raise UserError(
            f"--address {brief(address)}: a search does not run through Ray's client; start it on "
            "the cluster, for example with ray submit, without the flag and $RAY_ADDRESS"
        )
    place = re.fullmatch(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", address)
    if place is None or not 0 < int(place[1]) < 2**16:
        raise UserError(f"--address {brief(address)}: expected 'auto', or host:port")
