"""Which trials figures show, and how they name keys and values."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.support.search_results import (
    PARAMETERS,
    search,
)
from xlt_ray.config.method import MethodSpec, ViewSpec
from xlt_ray.config.space import Distribution, Integer, LogUniform, Uniform
from xlt_ray.config.spec import TrainingSpec
from xlt_ray.figures.common import NothingToDraw, mark_range, percent, proposals, short_name


def test_no_two_keys_have_one_short_name() -> None:
    fields = [*MethodSpec.model_fields, *ViewSpec.model_fields, *TrainingSpec.model_fields]
    assert len(fields) == len(set(fields))


def test_proposals_come_in_their_order_without_the_failed_and_the_fixed() -> None:
    entries = search(12)
    shown = proposals(entries, PARAMETERS)
    assert [row.label for row in shown] == [f"{n:02d}" for n in range(1, 13) if n != 5]


@pytest.mark.parametrize(
    ("parameters", "trials", "reason"),
    [({}, 12, "nothing is searched"), (PARAMETERS, 1, "fewer than two proposals")],
)
def test_too_few_proposals_are_no_picture(
    parameters: dict[str, Distribution], trials: int, reason: str
) -> None:
    with pytest.raises(NothingToDraw, match=reason):
        proposals(search(trials), parameters)


@pytest.mark.parametrize(
    ("given", "ticks"),
    [
        (Uniform(distribution="uniform", low=0.0, high=0.5), ["0", "0.25", "0.5"]),
        (LogUniform(distribution="log_uniform", low=0.1, high=10.0), ["0.1", "1", "10"]),
        (Integer(distribution="int", low=0, high=11), ["0", "11"]),
    ],
)
def test_an_axis_has_the_ends_and_the_middle_of_a_range(
    given: Distribution, ticks: list[str]
) -> None:
    axis = Figure().subplots().xaxis
    mark_range(axis, given)
    assert [label.get_text() for label in axis.get_ticklabels()] == ticks


def test_short_names_and_percent() -> None:
    assert short_name("method.view.noise_radius") == "noise radius"
    assert percent(0.25) == 25 and np.isnan(percent(None))
