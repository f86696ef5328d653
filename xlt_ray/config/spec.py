"""The search spec: every key of a search file, as frozen models.

:func:`xlt_ray.config.loading.load_spec` validates search files into them, so all other code sees
checked values only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from xlt_ray.config.base import Duration, Frozen, LanguageCode, Place
from xlt_ray.config.explain import one_line
from xlt_ray.config.keys import flatten, set_key
from xlt_ray.config.method import MethodName, MethodSpec
from xlt_ray.config.space import Categorical, Distribution, Integer, LogUniform, Uniform
from xlt_ray.errors import UserError

MOST_COMPARISON_SEEDS = 10_000
"""Most seeds of a comparison."""
Precision = Literal["auto", "bf16", "fp32"]
"""How matrix products are computed."""


class TrainingSpec(Frozen):
    """The fine-tuning recipe."""

    epochs: int = Field(default=1, ge=1)
    """Passes over the training examples (>= 1); the method `plain-long` makes twice as many."""

    max_steps: int | None = Field(default=None, ge=1)
    """Upper bound on optimiser steps, twice as many for `plain-long`; the learning rate decays over
    them. null: no bound."""

    learning_rate: float = Field(default=2e-5, gt=0)
    """AdamW's peak learning rate, of the head if there is a `layer_decay`; after `warmup_share` it
    decays linearly to 0."""

    warmup_share: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps, in [0, 1), over which the learning rate rises linearly from 0 to its
    peak; 0: no warm-up."""

    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor of the learning rate from each layer to the one below, in (0, 1]: the head has
    `learning_rate`, the top layer `layer_decay` times that, the embeddings the least (Howard and
    Ruder, ACL 2018; Clark et al., ICLR 2020). 1: all alike."""

    frozen_layers: int = Field(default=0, ge=0)
    """Lowest layers of the encoder that are not trained. They keep what they learnt of all
    languages (for mBERT: Wu and Dredze, EMNLP 2019). The embeddings are trained, unless
    `frozen_embeddings`. Layers that share their weights, such as ALBERT's, count as one."""

    frozen_embeddings: bool = False
    """Whether the embeddings are not trained. Then Embedding-Push trains nothing, nor does
    Attention-Pull if all layers up to its own are frozen as well."""

    lora_rank: int = Field(default=0, ge=0)
    """Rank of low-rank adapters (LoRA, Hu et al., ICLR 2022; alpha is 2 × rank) in all linear parts
    of the layers. Only they and the head are trained, so Embedding-Push trains nothing. They are
    merged into the weights at the end of the trial; `average_last` and `ema_decay` average them
    before that, each of the two matrices by itself. Needs the extra `lora` and a higher learning
    rate, such as 2e-4. 0: all weights are trained."""

    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""

    adam_epsilon: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon."""

    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest L2 norm of the gradient over all parameters."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each label's probability, in [0, 1), that is spread evenly over all classes (Szegedy
    et al., CVPR 2016), in the classification and the robust term."""

    batch_size: int = Field(default=32, ge=1)
    """Examples per optimiser step, over all workers and micro-batches (the effective batch)."""

    micro_batch_tokens: int | None = Field(default=None, ge=1)
    """Most tokens per forward pass of a worker, views included; gradients of further micro-batches
    are accumulated. null: 1,024 on a CPU, 2,048 if it has bf16 units, 16,384 on a GPU. Affects
    memory and speed, and the order in which dropout draws its masks: another value is like another
    seed of dropout."""

    max_length: int = Field(default=128, ge=8)
    """Longest input in tokens, special tokens included; longer pairs are truncated."""

    precision: Precision = "auto"
    """`auto`: bf16 autocast if the hardware supports it, else fp32."""

    evaluations_per_epoch: int = Field(default=4, ge=1)
    """Dev evaluations (and checkpoints) per epoch, evenly spaced; the last one ends the epoch. If
    `max_steps` ends the training within its first epoch, it has as many as a whole epoch.
    `plain-long` has more epochs, so more evaluations."""

    seed: int = Field(default=7, ge=0, lt=2**32)
    """Seed of data order, views and dropout, and of the head's initialisation unless `head_seed`
    is given."""

    head_seed: int | None = Field(default=None, ge=0, lt=2**32)
    """Seed of the head's initialisation; null: `seed`. Weights of runs with different data orders
    can be averaged only if their heads started alike."""

    average_last: int | None = Field(default=None, ge=1)
    """The trial's model is the mean of the weights at this many last dev evaluations (Schmidt et
    al., 2023), or of their averages by `ema_decay`; 1: the last ones. null: the weights of the best
    evaluation."""

    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Decay, in [0, 1), of an exponential moving average of the weights over the steps; it spans
    about 1 / (1 - decay) steps. The average is scored, selected and kept instead of the trained
    weights. 0: no average."""

    trim_vocabulary: bool = True
    """Train only the embedding rows that the task's texts and synonyms can reach. Results stay the
    same if `weight_decay` is 0; otherwise this is switched off. The table also stays whole for
    tokenizers that do not split a text at spaces, such as Gemma's, and if words that no space
    separates have too many combinations of synonyms; a warning says so."""

    @property
    def initial_seed(self) -> int:
        """The seed of the head's initialisation."""
        return self.seed if self.head_seed is None else self.head_seed


class DataSpec(Frozen):
    """Limits on the task's data; each but `target_dev_limit` takes the first rows of a split."""

    train_limit: int | None = Field(default=None, ge=1)
    """Most training examples; null: all."""

    dev_limit: int | None = Field(default=None, ge=1)
    """Most dev examples per language; null: all."""

    test_limit: int | None = Field(default=None, ge=1)
    """Most test examples per language; null: all."""

    dev_languages: Literal["all", "source"] = "all"
    """Languages of the dev evaluations. `source`: the source language and its virtual views only,
    which is all that a strictly zero-shot objective reads; with many target languages, evaluations
    take a fraction of the time. `all`: learning curves show the target languages too."""

    target_dev_limit: int | None = Field(default=None, ge=1)
    """Most dev examples of each target language; null: `dev_limit`. Each language has other rows,
    so that together the languages of a parallel dev set show more of it."""

    virtual_views: int = Field(default=4, ge=1)
    """Synonym views of each source-language dev text, for the objectives over virtual views; more
    views, less noise."""

    @model_validator(mode="after")
    def _check_dev(self) -> DataSpec:
        if self.dev_languages == "source" and self.target_dev_limit is not None:
            raise ValueError(
                "target_dev_limit: has no effect with dev_languages=source; remove it, or set "
                "dev_languages=all"
            )
        return self


class SamplerSpec(Frozen):
    """The sampler, which proposes configurations."""

    name: Literal["tpe", "random"] = "tpe"
    """Optuna's tree-structured Parzen estimator, or random search."""

    startup_trials: int = Field(default=5, ge=1)
    """Random configurations before TPE uses the results."""


class EarlyStoppingSpec(Frozen):
    """Asynchronous successive halving (ASHA) over a trial's dev evaluations."""

    enabled: bool = True
    """Whether to stop weak trials early. The baseline and the paper's setting are never stopped."""

    grace_evaluations: int = Field(default=1, ge=1)
    """Dev evaluations of every trial before it can be stopped (the first rung)."""

    reduction_factor: int = Field(default=3, ge=2)
    """At each rung, the best 1 / reduction_factor of the trials continue."""


class ConfirmationSpec(Frozen):
    """Confirmation of the best candidates after the search, with fresh seeds."""

    top: int = Field(default=2, ge=1)
    """Single trials to confirm, in addition to plain fine-tuning and the best soup."""

    seeds: int = Field(default=0, ge=0, le=1_000)
    """Fresh seeds with which each candidate is trained anew; the winner has the best mean dev
    objective, and ties within noise go to the simpler candidate. They are the numbers from
    `training.seed` + 10,001 on; of a searched seed, from the highest. 0: no confirmation. A soup is
    confirmed by training all its members."""


class SearchSettings(Frozen):
    """The search space, the number of trials and the objective."""

    parameters: dict[str, Distribution]
    """Searched keys of the spec (dotted, such as `method.push_margin`) and their distributions;
    empty: one trial with the spec's own values."""

    num_trials: int = Field(default=20, ge=1, le=1_000_000)
    """Trials of the search: the paper's setting, then the sampler's proposals."""

    paper_trial: bool = True
    """Whether the first trial of a search with parameters is `ear` with the paper's values; false:
    for encoders that cannot run it."""

    time_budget: Duration | None = None
    """Time such as `2h`, `90m` or `1h30m` after which the search starts no more trials
    (`--time-budget`). The first trial starts in any case, and those that run finish; soups,
    confirmation, comparison and report follow. A resumed search counts the time that it used
    before. null: no limit."""

    target: float | None = Field(default=None, ge=0, le=1)
    """Dev objective in [0, 1] at which the search starts no more trials, because a finished trial
    reaches it; null: none."""

    baselines: tuple[MethodName, ...] = ("plain",)
    """Methods to compare with, one additional trial each, with the paper's values if there are any;
    the trials include `ear` already. `--baselines`: all of them."""

    comparison_seeds: int = Field(default=0, ge=0, le=MOST_COMPARISON_SEEDS)
    """Number of seeds with which the best configuration other than the baselines and each baseline
    are trained again after the search and compared (`--seeds`); 0: no comparison. Above 0, `plain`
    is the only baseline that also runs within the search."""

    objective: str = "dev/accuracy/en"
    """The metric that selects checkpoints and trials, on dev data only: `dev/<measure>/<place>`.
    Measures: `accuracy`; `likelihood`, the geometric mean of the right classes' probabilities;
    `calibrated`, the same at the temperature that fits best, so that confidence does not count;
    `brier`, 1 - half the Brier score; `macro_f1`, the mean F1 over the classes. Places: the source
    language (`en`), synonym views of its dev texts (`en_virtual`), the mean of both
    (`en_and_virtual`); these are strictly zero-shot. `zero_shot_mean` uses target-language dev
    labels, but for `dev/estimated_accuracy/zero_shot_mean`, which reads target-language dev texts
    without their labels: how sure the model is of them, if each class is as frequent as in
    English."""

    sampler: SamplerSpec = SamplerSpec()
    """The sampler, which proposes configurations."""

    early_stopping: EarlyStoppingSpec = EarlyStoppingSpec()
    """Early stopping of weak trials."""

    max_concurrent: int | None = Field(default=None, ge=1)
    """Most trials at the same time; null: as many as the cluster has room for."""

    max_failures: int = Field(default=1, ge=0)
    """How often a trial is restarted from its last checkpoint before it counts as failed."""

    soups: bool = True
    """Whether to average the weights of the finished trials after the search. The means (`soup`,
    `soup-greedy`, one for each method if there are several) compete with the trials."""

    confirmation: ConfirmationSpec = ConfirmationSpec()
    """Confirmation of the best candidates, before the winner is chosen."""

    keep_weights: bool = False
    """Whether the storage keeps the weights of every finished trial; false: after the search, only
    those of the winner, of the best configuration and of the candidates of a confirmation: plain
    fine-tuning, the best soup and `confirmation.top` trials."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the sampler."""


class AssessmentSpec(Frozen):
    """Measurements of the pretrained encoder, plain fine-tuning and the best trial after the
    search."""

    alignment_rows: int = Field(default=500, ge=0)
    """Most test rows per language for the alignment; 0: no alignment. Needs a parallel test set."""

    generalized: bool = False
    """Whether to measure accuracy for every pair of a premise language and a hypothesis language
    (`--generalized`). Needs a task with two text columns and a parallel test set."""

    generalized_rows: int | None = Field(default=None, ge=1)
    """Most test rows per pair of languages; null: all."""


class ResourceSpec(Frozen):
    """The resources of one trial."""

    workers_per_trial: int = Field(default=1, ge=1)
    """Data-parallel Ray Train workers per trial."""

    max_workers_per_trial: int | None = Field(default=None, ge=1)
    """Most workers of an elastic trial: it uses as many as the cluster has room for and continues
    with fewer, at least `workers_per_trial`, when nodes leave; null: always `workers_per_trial`.
    The effective batch stays the same, but sums round differently and dropout draws other masks, so
    a trial's result depends on its number of workers."""

    cpus_per_worker: float = Field(default=1, gt=0)
    """CPU cores per worker; also its number of compute threads, rounded down, at least 1."""

    gpus_per_worker: float = Field(default=0, ge=0)
    """GPUs per worker; workers with a fraction below 1 share a GPU, above 1 only whole numbers."""

    price_per_gpu_hour: float | None = Field(default=None, gt=0)
    """Price of an hour of one GPU, in any currency. A search whose trials use GPUs then shows the
    cost of its trials so far and an estimate for all of them, those of elastic trials as if they
    always had `max_workers_per_trial`; null: it does not."""

    @property
    def most_workers(self) -> int:
        """Most workers that a trial can have."""
        return self.max_workers_per_trial or self.workers_per_trial

    @model_validator(mode="after")
    def _range(self) -> ResourceSpec:
        most = self.max_workers_per_trial
        if most is not None and most < self.workers_per_trial:
            raise ValueError(
                f"max_workers_per_trial: {most} is less than workers_per_trial, "
                f"{self.workers_per_trial}"
            )
        if 0 < self.gpus_per_worker < 1 and (most or self.workers_per_trial) > 1:
            raise ValueError(
                f"gpus_per_worker: {self.gpus_per_worker:g} would put several workers of a trial "
                "on one GPU, which NCCL refuses; give each a whole GPU, or a trial one worker"
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
    """The purpose of the search, in one line."""

    task: Place
    """A packaged task (`demo`, `massive`, `pawsx`, `sib200`, `xnli`) or the path of a task's
    YAML."""

    target_languages: Annotated[tuple[LanguageCode, ...], Field(min_length=1)] | None = None
    """Codes of the target languages (`--languages`), which the task need not list; null: the task's
    own."""

    data_dir: Place | None = None
    """Folder with the task's data in XTREME's TSV layout, instead of the task's own source."""

    model: Place
    """Short name such as `mmbert-base`, hub name, local folder (which comes before a short or hub
    name), or `packaged/multilingual-e5-small`."""

    method: MethodSpec = MethodSpec()
    """The method; each trial overrides the keys in `search.parameters` that its method uses."""

    training: TrainingSpec = TrainingSpec()
    """The fine-tuning recipe."""

    data: DataSpec = DataSpec()
    """Limits on the data."""

    search: SearchSettings
    """The search."""

    assessment: AssessmentSpec = AssessmentSpec()
    """Measurements of the chosen models after the search."""

    resources: ResourceSpec = ResourceSpec()
    """The resources of one trial."""

    def methods(self) -> list[MethodSpec]:
        """Return each method that the search can propose, with each of its kinds of view."""
        searched = self.search.parameters
        names, kinds = searched.get("method.name"), searched.get("method.view.kind")
        found = [self.method]
        if isinstance(names, Categorical):
            found = [self.method.model_copy(update={"name": name}) for name in names.choices]
        if not isinstance(kinds, Categorical):
            return found
        views = [self.method.view.model_copy(update={"kind": kind}) for kind in kinds.choices]
        return [
            method.model_copy(update={"view": view})
            for method in found
            for view in (views if method.uses("view.kind") else [method.view])
        ]

    def method_names(self) -> list[MethodName]:
        """Return the name of each method that the search can propose, once."""
        return list(dict.fromkeys(method.name for method in self.methods()))

    def reachable(self, key: str, value: int | None) -> list[Any]:
        """Return the spec's own value of a key and the choices or extremes that it can propose.

        Args:
            key: A key with whole numbers.
            value: The spec's own.
        """
        searched = self.search.parameters.get(key)
        if isinstance(searched, Categorical):
            return [value, *searched.choices]
        return [value, searched.low, searched.high] if isinstance(searched, Integer) else [value]

    @property
    def highest_seed(self) -> int:
        """The highest `training.seed` of a trial of the search; fresh seeds come after it."""
        return max(self.reachable("training.seed", self.training.seed))

    @model_validator(mode="after")
    def _parameters_fit(self) -> SearchSpec:
        """Check that both ends of each searched range are valid values of that key, and that a
        method which the search can propose uses the key."""
        for key, distribution in self.search.parameters.items():
            if not key.startswith(("method.", "training.")) or key in _NOT_SEARCHABLE:
                raise ValueError(
                    f"search.parameters.{key}: only keys of method and training can be searched, "
                    f"without {', '.join(sorted(_NOT_SEARCHABLE))}"
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
                    changed = with_values(self, {key: value})
                except UserError as error:
                    raise ValueError(f"search.parameters: {error}") from None
                if not isinstance(distribution, Categorical):
                    continue
                # pydantic reads '2' and 2.0 as 2; the sampler proposes what stands there.
                used = flatten(changed.model_dump(mode="json"))[key]
                if value != used or (isinstance(value, float) and isinstance(used, int)):
                    raise ValueError(
                        f"search.parameters.{key}: the choice {value!r:.80} has the wrong type; "
                        f"write {str(used).lower()}"
                    )
            if isinstance(distribution, Uniform | LogUniform):
                # Whole numbers at the ends pass the check above; draws in between are fractions.
                try:
                    with_values(self, {key: math.nextafter(low, high)})
                except UserError:
                    raise ValueError(
                        f"search.parameters.{key}: takes no fractions, "
                        "give 'distribution: int' or 'categorical'"
                    ) from None
        # Only now: the methods are those of valid choices.
        methods = self.methods()
        views = " or ".join(dict.fromkeys(method.view_kind or "none" for method in methods))
        for key in self.search.parameters:
            section, _, name = key.partition(".")
            if section == "method" and not any(method.uses(name) for method in methods):
                raise ValueError(
                    f"search.parameters.{key}: method {' or '.join(self.method_names())} "
                    f"(views: {views}) does not use it"
                )
        return self

    @model_validator(mode="after")
    def _seeds_fit(self) -> SearchSpec:
        fresh = self.search.comparison_seeds
        if self.search.confirmation.seeds:
            fresh = MOST_COMPARISON_SEEDS + self.search.confirmation.seeds
        if self.highest_seed + fresh >= 2**32:
            raise ValueError(
                "training.seed: comparison and confirmation take the seeds after it, and they must "
                "be < 2**32; lower training.seed"
            )
        return self


_NOT_SEARCHABLE = {
    "method.reduction",
    "method.view.synonyms",
    "training.max_length",
}
"""Keys that define the search space, or that the search prepares its data for only once."""


def with_values(spec: SearchSpec, values: Mapping[str, Any]) -> SearchSpec:
    """Return the spec with some dotted keys changed, and validate it again.

    Args:
        spec: The spec to start from; it is not changed.
        values: Dotted keys of `method` and `training`, and their new values.

    Raises:
        UserError: If a key does not exist or a value is out of range.
    """
    tree = spec.model_dump(mode="json")
    # Validating the whole spec would recurse: its check of parameter ranges calls this function.
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
