"""Where a search runs and what it leaves where; what does not change its result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Where a search runs and what it leaves where."""

    address: str | None
    """Ray cluster to join; None: $RAY_ADDRESS, else a local one that ends with the search."""
    storage: str
    """Folder or URI for checkpoints and search state."""
    tracking_uri: str
    """MLflow tracking URI."""
    experiment: str
    """MLflow experiment."""
