"""The start of a search: checks, then the cluster, then the run. Command line and API call it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xlt_ray.cluster.connection import Cluster, connect, offered, warm_up
from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import UserError
from xlt_ray.files import check_cache
from xlt_ray.pipeline.run import Outcome, new_search_folder, run_search
from xlt_ray.pipeline.settings import RunSettings, check_address
from xlt_ray.search.make_plan import make_plan_apart
from xlt_ray.search.plan import Plan
from xlt_ray.storage import check_storage, is_remote, try_writing
from xlt_ray.tracking.client import check_experiment, check_tracking

__all__ = ["Outcome", "checked_plan", "connected", "new_search_folder", "run_search"]


def checked_plan(spec: SearchSpec, settings: RunSettings, prepared: bool = True) -> Plan:
    """Check the settings, the data and the model, and plan the search; nothing stays written.

    Args:
        spec: The search.
        settings: Where it runs and what it records where.
        prepared: Whether data and model are prepared for training.

    Raises:
        UserError: If the settings, the data or the model are wrong.
    """
    check_address(settings.address or os.environ.get("RAY_ADDRESS"))
    _check_folder_names(settings.storage)
    check_storage(settings.storage)
    if not is_remote(settings.storage):
        try_writing(settings.storage)
    check_cache()
    check_tracking(settings.tracking_uri)
    check_experiment(settings.tracking_uri, settings.experiment)
    return make_plan_apart(spec, prepared=prepared)


def _check_folder_names(storage: str) -> None:
    """Check that the names of the folders are UTF-8, since Ray sends them to its workers."""
    folders = {"the working folder": Path.cwd()}
    if not is_remote(storage):
        folders["--storage"] = Path(storage).absolute()
    for what, folder in folders.items():
        shown = os.fsencode(folder).decode(errors="replace")
        if shown != str(folder):
            raise UserError(f"{what} {shown}: its name is not UTF-8, which Ray needs; rename it")


@contextmanager
def connected(
    spec: SearchSpec, settings: RunSettings, dry_run: bool = False
) -> Iterator[tuple[Cluster, int]]:
    """Connect to a Ray cluster, and disconnect at the end of the block.

    A cluster that this process is already connected to is used and stays connected.

    Args:
        spec: The planned search.
        settings: Where it runs.
        dry_run: Skip the test that a bucket can be written.

    Yields:
        The cluster's resources and the number of concurrent trials.

    Raises:
        UserError: If the storage cannot be written, there is no cluster, or no trial fits in it.
    """
    import ray

    if is_remote(settings.storage) and not dry_run:
        try_writing(settings.storage)
    joined = ray.is_initialized()
    cluster = offered() if joined else connect(settings.address, spec.model)
    if not (joined or dry_run):
        warm_up()
    try:
        yield cluster, cluster.concurrent_trials(spec)
    finally:
        if not joined:
            ray.shutdown()
