"""The search specification: every field a search file may set, in one place.

A search file is YAML. :func:`load_spec` reads it, applies ``--set key=value`` overrides and
validates it into the frozen models below; nothing downstream sees an unchecked value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from xlt_ray.config.base import Frozen, Place
from xlt_ray.config.explain import one_line
from xlt_ray.config.keys import set_key
from xlt_ray.config.method import MethodName, MethodSpec
from xlt_ray.config.space import Categorical, Distribution, LogUniform, Uniform
from xlt_ray.errors import UserError


class TrainingSpec(Frozen):
    """The fine-tuning recipe."""

    epochs: int = Field(default=1, ge=1)
    """Passes over the training pairs (>= 1)."""

    max_steps: int | None = Field(default=None, ge=1)
    """Upper bound on optimiser steps; the learning rate decays over these. null: none."""

    learning_rate: float = Field(default=2e-5, gt=0)
    """AdamW's peak learning rate; it decays linearly to 0 without warm-up."""

    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""

    adam_epsilon: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon."""

    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest L2 norm of the gradient over all parameters."""

    batch_size: int = Field(default=32, ge=1)
    """Pairs of one optimiser step, over all workers and micro-batches (the effective batch)."""

    micro_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one forward pass of one worker, views included; what is more is accumulated. null:
    1,024 on a CPU, 16,384 on a GPU. Changes no result, only memory and speed."""

    max_length: int = Field(default=128, ge=8)
    """Longest input in tokens, special tokens included; longer pairs are truncated."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: bf16 autocast where the hardware computes in it, else fp32."""

    evaluations_per_epoch: int = Field(default=4, ge=1)
    """Dev evaluations (and checkpoints) per epoch, evenly spaced; the last one is at its end."""

    seed: int = Field(default=7, ge=0, lt=2**32)
    """Seed of the head's initialisation, data order, views and dropout."""

    trim_vocabulary: bool = True
    """Train only the embedding rows that the task's text and synonyms can reach. Changes no
    result while `weight_decay` is 0 (and is switched off where it is not)."""


class DataSpec(Frozen):
    """How much of the task's data is used; each limit takes the first rows of a split."""

    train_limit: int | None = Field(default=None, ge=1)
    """Training pairs at most; null: all."""

    dev_limit: int | None = Field(default=None, ge=1)
    """Dev pairs a language at most; null: all."""

    test_limit: int | None = Field(default=None, ge=1)
    """Test pairs a language at most; null: all."""


class SamplerSpec(Frozen):
    """Who proposes configurations."""

    name: Literal["tpe", "random"] = "tpe"
    """Optuna's tree-structured Parzen estimator, or random search."""

    startup_trials: int = Field(default=5, ge=1)
    """Random configurations before TPE models the results."""


class EarlyStoppingSpec(Frozen):
    """Asynchronous successive halving (ASHA) over a trial's dev evaluations."""

    enabled: bool = True
    """Whether weak trials are stopped early. The baseline and the paper's setting never are."""

    grace_evaluations: int = Field(default=1, ge=1)
    """Evaluations every trial gets before it may be stopped (the first rung)."""

    reduction_factor: int = Field(default=3, ge=2)
    """At each rung the best 1 / reduction_factor of the trials go on."""


class SearchSettings(Frozen):
    """What is searched, how long and by which measure."""

    parameters: dict[str, Distribution]
    """Searched keys of the spec (dotted, such as `method.push_margin`) and their distributions;
    empty: the spec's own values are run as they are."""

    num_trials: int = Field(default=20, ge=1, le=1_000_000)
    """Trials of the search: the paper's setting, then the sampler's proposals."""

    baselines: tuple[MethodName, ...] = ("plain",)
    """Methods run beside them for comparison, one more trial each, with the paper's values where
    they have any; `ear` is among the trials anyway. `--baselines`: all of them."""

    comparison_seeds: int = Field(default=0, ge=0, le=10_000)
    """Seeds with which the best configuration and each baseline are run anew after the search and
    compared (`--seeds`); 0: no comparison. Above 0 only `plain` of the baselines is also run
    within the search."""

    objective: str = "dev/accuracy/en"
    """What selects checkpoints and trials, on dev data only: `dev/accuracy/<source language>` or
    `dev/accuracy/<source language>_virtual`, over synonym views of its dev set (both strictly
    zero-shot), or `dev/accuracy/zero_shot_mean` (uses target-language dev labels)."""

    sampler: SamplerSpec = SamplerSpec()
    """Who proposes configurations."""

    early_stopping: EarlyStoppingSpec = EarlyStoppingSpec()
    """When weak trials are stopped."""

    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials side by side at most; null: as many as the cluster holds."""

    max_failures: int = Field(default=1, ge=0)
    """How often a trial is restarted from its last checkpoint before it counts as failed."""

    keep_weights: bool = False
    """Whether the weights of every finished trial are kept in the storage; false: those of the best
    trial and of plain fine-tuning only, once the search has ended."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the sampler."""


class AssessmentSpec(Frozen):
    """What is measured of the encoder as pretrained, of plain fine-tuning and of the best trial,
    after the search."""

    alignment_rows: int = Field(default=500, ge=0)
    """Test rows of each language at most that alignment is measured on; 0: it is not. Needs a
    parallel test set."""

    generalized: bool = False
    """Whether accuracy is measured for every language of the premise with every language of the
    hypothesis (`--generalized`). Needs pairs of texts and a parallel test set."""

    generalized_rows: int | None = Field(default=None, ge=1)
    """Test rows at most for each pair of languages; null: all."""


class ResourceSpec(Frozen):
    """What one trial occupies."""

    workers_per_trial: int = Field(default=1, ge=1)
    """Data-parallel Ray Train workers a trial."""

    max_workers_per_trial: int | None = Field(default=None, ge=1)
    """A trial takes up to so many workers where the cluster has room, and goes on with fewer, down
    to `workers_per_trial`, when nodes leave; null: always `workers_per_trial`. The effective batch
    stays, but sums round differently, so that a trial's result depends on how many it had."""

    cpus_per_worker: float = Field(default=1, gt=0)
    """CPU cores a worker; also its number of compute threads, rounded down, at least 1."""

    gpus_per_worker: float = Field(default=0, ge=0)
    """GPUs a worker; fractions below 1 share a GPU, above 1 only whole numbers."""

    @model_validator(mode="after")
    def _range(self) -> ResourceSpec:
        most = self.max_workers_per_trial
        if most is not None and most < self.workers_per_trial:
            raise ValueError(
                f"max_workers_per_trial: {most} is less than workers_per_trial, "
                f"{self.workers_per_trial}"
            )
        return self

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("above 1 only whole numbers of GPUs can be given to a worker")
        return value


class SearchSpec(Frozen):
    """A whole search."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    """Name of the search: letters, digits, `_`, `.`, `-`; at most 100."""

    description: str = ""
    """One line on what it is for."""

    task: Place
    """A packaged task (`demo`, `xnli`, `pawsx`) or the path of a task's YAML."""

    data_dir: Place | None = None
    """Folder with the task's data in XTREME's TSV layout, instead of the task's own source."""

    model: Place
    """Hub name, local folder, or `packaged/multilingual-e5-small`."""

    method: MethodSpec = MethodSpec()
    """The method; keys under `search.parameters` override it a trial."""

    training: TrainingSpec = TrainingSpec()
    """The fine-tuning recipe."""

    data: DataSpec = DataSpec()
    """How much data is used."""

    search: SearchSettings
    """What is searched."""

    assessment: AssessmentSpec = AssessmentSpec()
    """What is measured of chosen models after the search."""

    resources: ResourceSpec = ResourceSpec()
    """What one trial occupies."""

    def methods(self) -> list[MethodSpec]:
        """The method with each kind of view that is searched."""
        kinds = self.search.parameters.get("method.view.kind")
        if not isinstance(kinds, Categorical):
            return [self.method]
        view = self.method.view
        return [
            self.method.model_copy(update={"view": view.model_copy(update={"kind": kind})})
            for kind in kinds.choices
        ]

    @model_validator(mode="after")
    def _seeds_fit(self) -> SearchSpec:
        if self.training.seed + self.search.comparison_seeds >= 2**32:
            raise ValueError(
                "training.seed: the comparison takes the seeds after it, and they must be < 2**32; "
                "lower training.seed or search.comparison_seeds"
            )
        return self

    @model_validator(mode="after")
    def _parameters_fit(self) -> SearchSpec:
        """Each end of each searched range must itself be a valid value of that key."""
        for key, distribution in self.search.parameters.items():
            if not key.startswith(("method.", "training.")) or key in _NOT_SEARCHABLE:
                raise ValueError(
                    f"search.parameters.{key}: only keys of method and training can be searched, "
                    f"without {', '.join(sorted(_NOT_SEARCHABLE))}"
                )
            section, _, name = key.partition(".")
            if section == "method" and not any(m.uses(name) for m in self.methods()):
                raise ValueError(
                    f"search.parameters.{key}: method {self.method.name} "
                    f"(views: {self.method.view_kind or 'none'}) does not use it"
                )
            if isinstance(distribution, Categorical):
                ends: tuple[Any, ...] = distribution.choices
            else:
                low, high = distribution.low, distribution.high
                if low >= high:
                    raise ValueError(
                        f"search.parameters.{key}: low {low} must be below high {high}"
                    )
                ends = (low, high)
            for value in ends:
                try:
                    with_values(self, {key: value})
                except UserError as error:
                    raise ValueError(f"search.parameters: {error}") from None
            if isinstance(distribution, Uniform | LogUniform):
                # The ends may be whole numbers; hardly any number drawn between them is.
                try:
                    with_values(self, {key: math.nextafter(low, high)})
                except UserError:
                    raise ValueError(
                        f"search.parameters.{key}: takes no fractions, "
                        "give 'distribution: int' or 'categorical'"
                    ) from None
        return self


_NOT_SEARCHABLE = {
    "method.name",
    "method.reduction",
    "method.view.synonyms",
    "training.max_length",
}
"""Keys that decide what is searched, or that the search prepares for once."""


def with_values(spec: SearchSpec, values: Mapping[str, Any]) -> SearchSpec:
    """Return the spec with some dotted keys changed, validated again.

    Args:
        spec: The spec to start from; it is not changed.
        values: Dotted keys of `method` and `training`, and their new values.

    Raises:
        UserError: If a key does not exist or a value is out of range.
    """
    tree = spec.model_dump(mode="json")
    # Checking the parameter ranges again would recurse: they are what calls this function.
    sections: dict[str, type[BaseModel]] = {"method": MethodSpec, "training": TrainingSpec}
    for key, value in values.items():
        if key.partition(".")[0] not in sections:
            raise UserError(f"{key}: not a key of {' or '.join(sections)}")
        set_key(tree, key, value)
    updates: dict[str, Any] = {}
    for name, model in sections.items():
        try:
            updates[name] = model.model_validate(tree[name])
        except ValidationError as error:
            raise UserError(one_line(error, name, model)) from None
    return spec.model_copy(update=updates)
