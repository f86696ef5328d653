"""From Python: load a search, run it, read its table, score texts with its model.

`docs/python.md` shows each at work.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from xlt_ray.config.loading import load_spec
from xlt_ray.config.spec import SearchSpec
from xlt_ray.pipeline.settings import Settings, check_address
from xlt_ray.storage import check_storage, try_writing
from xlt_ray.tracking.uri import tracking_store

if TYPE_CHECKING:
    import pandas as pd

    from xlt_ray.inference.classifier import Classifier
    from xlt_ray.pipeline.run import Outcome

__all__ = ["leaderboard", "load_model", "load_spec", "run_search"]


def run_search(
    spec: SearchSpec,
    *,
    storage: str = "runs",
    tracking_uri: str | None = None,
    experiment: str | None = None,
    address: str | None = None,
    console: Console | None = None,
) -> Outcome:
    """Run a search, as `launch.py` does; it must be called from a program's main part
    (`if __name__ == "__main__":`), for it starts processes.

    Args:
        spec: The search, as :func:`load_spec` reads it.
        storage: Folder or URI for checkpoints.
        tracking_uri: MLflow's; None: $MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db`.
        experiment: MLflow's; None: the search's name.
        address: Ray cluster to join; None: $RAY_ADDRESS, else one for the time of the search. A
            cluster that this process is connected to is used and left as it is.
        console: Where progress and the table are shown; None: nowhere.

    Returns:
        The ranked trials and the search's folder.

    Raises:
        UserError: If something in the spec, the data or the settings is wrong; before training.
        KeyboardInterrupt: If it was stopped; `launch.py --resume` goes on with it.
    """
    import ray

    from xlt_ray.cluster import connection
    from xlt_ray.pipeline import run
    from xlt_ray.search.plan import make_plan_apart
    from xlt_ray.tracking.client import check_tracking

    uri = tracking_store(tracking_uri)
    settings = Settings(address, storage, uri, experiment or spec.name)
    check_address(address or os.environ.get("RAY_ADDRESS"))
    check_storage(storage)
    check_tracking(uri)
    plan = make_plan_apart(spec, prepared=True)
    try_writing(storage)
    connected = ray.is_initialized()
    if not connected:
        connection.connect(address)
    try:
        connection.offered().concurrent_trials(plan.spec)
        folder = run.new_folder(plan.spec, storage)
        return run.run_search(plan, settings, console or Console(quiet=True), folder)
    finally:
        if not connected:
            ray.shutdown()


def leaderboard(folder: str | Path) -> pd.DataFrame:
    """The trials of a search that has ended, best first; of no rank: baselines, then what was
    stopped early or failed.

    Args:
        folder: The search's folder, such as `runs/demo-20260101-120000`.

    Returns:
        A table, indexed by trial: `rank`, `status`, each searched key, `objective`, and the test
        accuracies (0 to 1) as `test/accuracy/XX`.

    Raises:
        FileNotFoundError: If there is no such folder, or its search has not come so far.
    """
    import pandas as pd

    table = pd.read_json(Path(folder) / "leaderboard.json", dtype={"trial": str})
    return table.set_index("trial")


def load_model(folder: str | Path, device: str | None = None) -> Classifier:
    """A fine-tuned model, such as the `best-model/` of a search.

    Args:
        folder: Its folder.
        device: Where it computes; None: a GPU if there is one.

    Raises:
        UserError: If there is none in the folder, or it cannot be loaded.
    """
    from xlt_ray.inference.classifier import Classifier

    return Classifier.load(folder, device)
