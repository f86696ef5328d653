"""Settings of a search that do not change its result. The CLI and the API make them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from xlt_ray.errors import UserError, brief


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
