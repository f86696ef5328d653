"""The Python interface: load a search, run it, read its leaderboard, load its model.

`docs/python.md` has an example of each.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from xlt_ray.config.loading import load_spec
from xlt_ray.config.spec import SearchSpec
from xlt_ray.pipeline.settings import RunSettings
from xlt_ray.tracking.uri import default_tracking_uri

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
    """Run a search, as `launch.py` does.

    The search starts processes: call it under `if __name__ == "__main__":`.

    Args:
        spec: The search, as returned by :func:`load_spec`.
        storage: Folder or URI for checkpoints.
        tracking_uri: MLflow tracking URI; None: $MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db`.
        experiment: MLflow experiment; None: the search's name.
        address: Ray cluster to join; None: $RAY_ADDRESS, else a cluster on this machine that ends
            with the search. If this process is connected to a cluster, the search uses that one and
            leaves it connected.
        console: Where progress and the table are shown; None: nowhere.

    Returns:
        The ranked trials and the search's folder.

    Raises:
        UserError: If the spec, the data or the settings are wrong; before training.
        KeyboardInterrupt: If the search was stopped; `launch.py --resume` continues it.
    """
    from xlt_ray.pipeline import start

    uri = default_tracking_uri(tracking_uri)
    settings = RunSettings(address, storage, uri, experiment or spec.name)
    plan = start.checked_plan(spec, settings)
    with start.connected(plan.spec, settings):
        folder = start.new_search_folder(plan.spec, storage)
        return start.run_search(plan, settings, console or Console(quiet=True), folder)


def leaderboard(folder: str | Path) -> pd.DataFrame:
    """Read the trials of a finished search, best first.

    Every finished trial has a rank. Trials that were stopped early or failed follow without one.

    Args:
        folder: The search's folder, such as `runs/demo-20260101-120000`.

    Returns:
        A table, indexed by trial: `rank`, `status`, each searched key, `objective`, and the test
        accuracies in [0, 1] as `test/accuracy/XX`.

    Raises:
        FileNotFoundError: If there is no such folder, or its search has no leaderboard yet.
    """
    import pandas as pd

    table = pd.read_json(Path(folder) / "leaderboard.json", dtype={"trial": str})
    return table.set_index("trial")


def load_model(folder: str | Path, device: str | None = None) -> Classifier:
    """Load a fine-tuned model, such as the `best-model/` of a search.

    Args:
        folder: The model's folder.
        device: Device for inference, such as `cpu` or `cuda:0`; None: a GPU if there is one.

    Raises:
        UserError: If the folder has no model, or the model cannot be loaded.
    """
    from xlt_ray.inference.classifier import Classifier

    return Classifier.load(folder, device)
