"""The saved view of the table of runs: its columns, its size and its address."""

from __future__ import annotations

import json

from xlt_ray.config.loading import load_spec
from xlt_ray.tracking.results_view import VIEW_TAG, results_page, results_view


def test_the_view_fits_into_a_tag_with_any_number_of_languages() -> None:
    spec = load_spec("demo")
    languages = [f"{number:03d}" for number in range(300)]
    (view,) = results_view(spec, languages, 0).values()
    assert len(view) <= 5000
    state = json.loads(json.loads(view)["state"])
    assert state["orderByKey"] == "metrics.`objective`"
    assert "metrics.`test/accuracy/000`" in state["selectedColumns"]


def test_columns_are_the_scores_and_the_searched_keys() -> None:
    spec = load_spec("demo")
    view = json.loads(results_view(spec, ["en", "de"], 7)[VIEW_TAG])
    assert (view["createdAt"], view["updatedAt"]) == (7, 7)
    columns = json.loads(view["state"])["selectedColumns"]
    assert columns == [
        "metrics.`objective`",
        "metrics.`score/test_zero_shot`",
        "metrics.`test/accuracy/en`",
        "metrics.`test/accuracy/de`",
        *(f"params.`{key}`" for key in spec.search.parameters),
        "tags.`status`",
    ]


def test_address_of_the_view() -> None:
    assert results_page("http://host:5000/", "12") == (
        "http://host:5000/#/experiments/12/runs"
        "?viewStateShareKey=results&workflowType=machine_learning"
    )
