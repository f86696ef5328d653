"""A trial as a value: its label, its kind and its values of spec keys.

Ray Tune and the ledger's file keep a trial as a flat dictionary, its *config*: `Trial.from_config`
and `Trial.to_config` are the only places that know this format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Self

from xlt_ray.config.method import PAPER_METHOD, PRESETS, MethodName
from xlt_ray.config.spec import ConfirmationSpec, SearchSpec, with_values
from xlt_ray.names import BEST, FIXED, PAPER, SOUP

LABEL = "label"
"""Key of a trial's config that holds its label; the other keys are keys of the spec."""
LABELS: dict[MethodName, str] = {name: PAPER if name == "ear" else name for name in PRESETS}
"""Label of each method's trial."""
BASELINES = frozenset(LABELS.values()) - {PAPER}
"""Labels of the baselines."""

_SEED = "training.seed"
_REPEATED = re.compile(r".+-seed\d+")
_SOUP = re.compile(rf"{SOUP}(-.+)?")


class TrialStatus(StrEnum):
    """The status of a trial, in the words of the ledger and of the tables."""

    RUNNING = "running"
    FINISHED = "finished"
    """It has test scores."""
    PRUNED = "pruned"
    """ASHA stopped it early."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """The search ended before the trial did."""


class TrialKind(Enum):
    """Why a search has a trial."""

    PROPOSED = "proposed"
    """The sampler proposed its values; its label is its number."""
    PAPER = "paper"
    """The paper's method with the paper's values."""
    BASELINE = "baseline"
    """Another method, with the paper's values; it competes for the first rank like every trial."""
    CONFIG = "config"
    """The spec's own values, or values that a user chose."""
    SOUP = "soup"
    """The average of the weights of several trials of the search."""
    COMPARISON = "comparison"
    """A configuration that is trained again with another seed."""


@dataclass(frozen=True)
class Trial:
    """One configuration of a search."""

    label: str
    """Its unique name in the search: `07`, `paper`, `plain`, `config`, `soup`, `best-07-seed8`."""
    kind: TrialKind
    """Why the search has it."""
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Its values of spec keys; the spec has the others."""

    @classmethod
    def labelled(cls, label: str, values: Mapping[str, Any] | None = None) -> Self:
        """Return the trial with a label, which tells the kind."""
        return cls(label, _kind_of(label), dict(values or {}))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the trial of a config of Ray Tune or of the ledger."""
        values = dict(config)
        return cls.labelled(str(values.pop(LABEL)), values)

    @classmethod
    def proposal(cls, number: int, values: Mapping[str, Any]) -> Self:
        """Return the sampler's proposal with a number, counted from 1."""
        return cls(f"{number:02d}", TrialKind.PROPOSED, dict(values))

    @classmethod
    def of_method(cls, name: MethodName) -> Self:
        """Return a method's trial: the paper's values, where the method uses them."""
        paper = {f"method.{key}": value for key, value in PAPER_METHOD.items()}
        if not PRESETS[name].terms:
            paper = {}
        return cls.labelled(LABELS[name], paper | {"method.name": name})

    def to_config(self) -> dict[str, Any]:
        """Return the config for Ray Tune and the ledger."""
        return {LABEL: self.label, **self.values}

    def with_seed(self, seed: int) -> Trial:
        """Return the same configuration with a seed of the comparison or of the confirmation."""
        label = seed_label(self.label, seed)
        return Trial(label, TrialKind.COMPARISON, {**self.values, _SEED: seed})

    @property
    def proposed(self) -> bool:
        """Whether the sampler proposed it."""
        return self.kind is TrialKind.PROPOSED

    @property
    def baseline(self) -> bool:
        """Whether it is a baseline."""
        return self.kind is TrialKind.BASELINE

    @property
    def soup(self) -> bool:
        """Whether it averages the weights of other trials; it has no configuration of its own."""
        return self.kind is TrialKind.SOUP

    @property
    def configuration(self) -> frozenset[tuple[str, Any]]:
        """Its keys and values without the seed; runs of the same configuration have equal ones."""
        return frozenset(item for item in self.values.items() if item[0] != _SEED)

    @property
    def number(self) -> int:
        """The number of a proposal, from 1; 0 for every other trial."""
        return int(self.label) if self.proposed else 0

    def spec(self, search: SearchSpec) -> SearchSpec:
        """Return the spec that the trial runs, without the stages that follow a search.

        Its seed may be the last one that these stages have room for.
        """
        own = trial_spec(search, self.values)
        nothing = {"comparison_seeds": 0, "confirmation": ConfirmationSpec()}
        return own.model_copy(update={"search": own.search.model_copy(update=nothing)})


BEST_TRIAL = Trial(BEST, TrialKind.CONFIG)
"""The spec's own values, to be repeated with several seeds."""
FIXED_TRIAL = Trial(FIXED, TrialKind.CONFIG)
"""The only trial of a search that searches nothing."""


def best_label(label: str) -> str:
    """Return the name that a search's best configuration has in the comparison: `best-07`."""
    return f"{BEST}-{label}"


def seed_label(name: str, seed: int) -> str:
    """Return the label of a configuration's run in the comparison or in the confirmation."""
    return f"{name}-seed{seed}"


def trial_spec(search: SearchSpec, values: Mapping[str, Any]) -> SearchSpec:
    """Return the spec of one trial: the search's spec with the trial's values, searching nothing.

    The comparison and the confirmation stay, as `best.yaml` repeats them.

    Args:
        search: The search.
        values: The trial's values of spec keys.
    """
    own = with_values(search, values)
    alone = own.search.model_copy(update={"parameters": {}, "num_trials": 1, "baselines": ()})
    return own.model_copy(update={"search": alone})


def _kind_of(label: str) -> TrialKind:
    if label.isdigit():
        return TrialKind.PROPOSED
    if label == PAPER:
        return TrialKind.PAPER
    if label in BASELINES:
        return TrialKind.BASELINE
    if _REPEATED.fullmatch(label):
        return TrialKind.COMPARISON
    return TrialKind.SOUP if _SOUP.fullmatch(label) else TrialKind.CONFIG
