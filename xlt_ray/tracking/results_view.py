"""The saved view of results in MLflow's table of runs."""

from __future__ import annotations

import json
from collections.abc import Sequence

from xlt_ray.config.spec import SearchSpec
from xlt_ray.names import OBJECTIVE

VIEW = "results"
"""Name of the view of a search's runs that :func:`results_view` is."""
# Undocumented: where "Save view" of MLflow 3's pages keeps one. Others leave it unread.
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""Tag of the experiment that is that view."""
_MOST_LANGUAGES = 40
"""Columns of a view; MLflow's tags hold 5,000 characters."""
HEADLINE = "score/test_zero_shot"
"""Metric of a trial that is its test zero-shot mean once more: MLflow orders the columns of a view
by their names, and by this one it stands before those of the languages."""


def results_view(spec: SearchSpec, languages: Sequence[str], now_ms: int) -> dict[str, str]:
    """A view of the table of runs that MLflow offers under Views: the best trial first, and of the
    hundreds of columns those that tell trials apart.

    Args:
        spec: The search.
        languages: Codes of the languages that are scored.
        now_ms: Milliseconds since 1970.

    Returns:
        The tags of the experiment that are the view.
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
    """The address of that view.

    Opened without it, MLflow's pages of an experiment are those of applications of language models,
    until a visitor chooses "Model training" there; an experiment's kind is not looked at.

    Args:
        address: Where MLflow's pages are, such as `http://127.0.0.1:5000`.
        experiment_id: MLflow's id of the experiment.
    """
    page = f"{address.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{page}?viewStateShareKey={VIEW}&workflowType=machine_learning"
