"""The trials of a search: labels, values, and the spec each one runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xlt_ray.config.method import PAPER_METHOD, PRESETS, MethodName
from xlt_ray.config.spec import SearchSpec, with_values
from xlt_ray.names import PAPER

LABELS: dict[MethodName, str] = {name: PAPER if name == "ear" else name for name in PRESETS}
"""Label of each method's trial."""
BASELINES = frozenset(LABELS.values()) - {PAPER}
"""Labels of the trials that are run for comparison and have no rank."""


def method_trial(name: MethodName) -> dict[str, Any]:
    """A method's configuration: the paper's values, where the method has them."""
    values = {"label": LABELS[name]}
    paper = {f"method.{key}": value for key, value in PAPER_METHOD.items()}
    if name == "plain":
        paper = {}
    return values | paper | {"method.name": name}


LABEL = "label"
"""Key of a trial's configuration that holds its name; the others are keys of the spec."""


def trial_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's values of spec keys, without its label."""
    return {key: value for key, value in config.items() if key != LABEL}


def trial_spec(spec: SearchSpec, config: Mapping[str, Any]) -> SearchSpec:
    """The spec of one trial: the search's with the trial's values in place, searching nothing."""
    own = with_values(spec, trial_values(config))
    alone = own.search.model_copy(update={"parameters": {}, "num_trials": 1, "baselines": ()})
    return own.model_copy(update={"search": alone})
