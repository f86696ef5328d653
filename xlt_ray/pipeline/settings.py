"""Settings of a search that do not change its result. The CLI and the API make them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from xlt_ray.errors import UserError, brief
from xlt_ray.files import json_text, write_whole
from xlt_ray.names import STATE
from xlt_ray.tracking.uri import absolute, default_tracking_uri, redact

_TRACKING = f"{STATE}/tracking.json"
"""File in a search's folder: where MLflow has its runs, without credentials."""


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


def keep_tracking(settings: RunSettings, folder: Path) -> None:
    """Write down where a search is recorded; :func:`tracking_of` reads it when it is resumed.

    Args:
        settings: The settings.
        folder: The search's folder.
    """
    kept = {"uri": redact(absolute(settings.tracking_uri)), "experiment": settings.experiment}
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
    kept: dict[str, str] = {}
    if folder is not None and (folder / _TRACKING).is_file():
        kept = json.loads((folder / _TRACKING).read_text(encoding="utf-8"))
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


def check_address(address: str | None) -> None:
    """Check the form of a Ray cluster's address.

    Raises:
        UserError: If it is neither `auto` nor a host and a port.
    """
    if not address or address in ("auto", "local"):
        return
    place = re.fullmatch(r"(?:ray://)?(?:[\w.-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", address)
    if place is None or not 0 < int(place[1]) < 2**16:
        raise UserError(f"--address {brief(address)}: expected 'auto', or host:port")
