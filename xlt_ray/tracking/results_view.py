"""The saved view of a search's results in MLflow's table of runs; pipeline and `ui` use it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from xlt_ray.config.spec import SearchSpec
from xlt_ray.names import OBJECTIVE

VIEW = "results"
"""Name of the saved view."""
# Undocumented: "Save view" of MLflow 3 stores a view in this tag. Other versions ignore it.
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""Tag of the experiment that holds the saved view."""
_MOST_LANGUAGES = 40
"""Maximum number of languages in the view, since MLflow's tags hold 5,000 characters."""
HEADLINE = "score/test_zero_shot"
"""Copy of a trial's test zero-shot mean. MLflow orders the columns of a view by name, and this name
puts the mean before the languages."""


def results_view(spec: SearchSpec, languages: Sequence[str], now_ms: int) -> dict[str, str]:
    """Return the saved view of the table of runs, which MLflow offers under Views.

    The view lists the best trial first and shows the columns that distinguish trials.

    Args:
        spec: The search.
        languages: Codes of the scored languages.
        now_ms: Milliseconds since 1970.

    Returns:
        Tags of the experiment, by name.
    """
    columns = [
        *(f"metrics.`{name}`" for name in (OBJECTIVE, HEADLINE)),
        *(f"metrics.`test/accuracy/{code}`" for code in languages[:_MOST_LANGUAGES]),
        *(f"params.`{key}`" for key in spec.search.parameters),
        "tags.`status`",
    ]
    state = {
        "orderByKey": f"metrics.`{OBJECTIVE}`",
        "orderByAsc": False,
        "selectedColumns": columns,
    }
    view = {"name": VIEW.capitalize(), "createdAt": now_ms, "updatedAt": now_ms}
    return {VIEW_TAG: json.dumps(view | {"state": json.dumps(state)})}


def results_page(address: str, experiment_id: str) -> str:
    """Return the address of the saved view.

    The address selects "Model training", since MLflow opens experiments as applications of language
    models by default and ignores their kind.

    Args:
        address: Address of MLflow's pages, such as `http://127.0.0.1:5000`.
        experiment_id: MLflow's id of the experiment.
    """
    page = f"{address.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{page}?viewStateShareKey={VIEW}&workflowType=machine_learning"
