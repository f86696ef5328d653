"""The plan of a search: its trials, and all checks that need no training. The CLI makes it."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xlt_ray.config.keys import flatten
from xlt_ray.config.method import PRESETS, MethodName, MethodSpec
from xlt_ray.config.space import Categorical, Integer
from xlt_ray.config.spec import SearchSpec
from xlt_ray.config.task import Split, TaskSpec, task_of
from xlt_ray.data.batching import BatchSchedule
from xlt_ray.encoders.catalogue import hub_name
from xlt_ray.encoders.loading import EncoderInfo
from xlt_ray.errors import UserError, nearest
from xlt_ray.evaluation.scores import objectives
from xlt_ray.names import BASELINE, BEST, ZERO_SHOT_MEAN
from xlt_ray.search.inputs import fingerprints
from xlt_ray.search.trials import BEST_TRIAL, FIXED_TRIAL, LABELS, Trial, TrialKind

if TYPE_CHECKING:
    from xlt_ray.data.sample import TaskSample
    from xlt_ray.training.probe import Probe

MOST_EVALUATIONS = 100_000
"""Upper limit of dev evaluations of one trial, because a list of them is kept."""

MOST_UNKNOWN = 0.03
"""Share of unknown pieces in a language above which the plan warns."""


@dataclass(frozen=True)
class SearchOutline:
    """A search and its task: which trials it has, whether or not this machine can run them."""

    spec: SearchSpec
    """The search."""
    task: TaskSpec
    """The task."""

    def fixed_trials(self) -> list[Trial]:
        """Return the trials that do not come from the sampler: the paper's or the spec's own
        values, then the baselines."""
        if self.repeats:
            return self._seeded([BEST_TRIAL])
        baselines = [*map(Trial.of_method, self.baselines)]
        if not self.spec.search.parameters:
            return [FIXED_TRIAL, *baselines]
        return [Trial.of_method("ear"), *baselines] if self.has_paper_trial else baselines

    @property
    def has_paper_trial(self) -> bool:
        """Whether the first trial is EAR with the paper's values."""
        return bool(self.spec.search.parameters) and self.spec.search.paper_trial

    @property
    def repeats(self) -> bool:
        """Whether the search is one configuration with several seeds: it has no parameters and no
        baselines, so its own trials are the runs of the comparison."""
        search = self.spec.search
        return bool(search.comparison_seeds and not search.parameters and not search.baselines)

    @property
    def baselines(self) -> tuple[MethodName, ...]:
        """Methods that the search itself runs as baselines."""
        wanted = dict.fromkeys(self.spec.search.baselines)
        if self.has_paper_trial:
            wanted.pop("ear", None)
        if self.spec.search.comparison_seeds:
            # The others run with several seeds afterwards.
            return tuple(name for name in wanted if name == BASELINE)
        return tuple(wanted)

    @property
    def trials(self) -> int:
        """Trials of the search, the baselines included."""
        if self.repeats:
            return len(self.comparison_seeds)
        searched = self.spec.search.num_trials if self.spec.search.parameters else 1
        return searched + len(self.baselines)

    def comparison_trials(self, best: Mapping[str, Any]) -> list[Trial]:
        """Return the comparison's trials: the best one and each baseline, with each seed.

        The seeds are new, because the best configuration was selected by its result with the
        search's seed. Runs of one seed share the order of the data and the initial head.

        Args:
            best: The best configuration's values of spec keys.
        """
        if self.repeats:
            return []
        first = Trial(BEST, TrialKind.CONFIG, dict(best))
        return self._seeded([first, *map(Trial.of_method, self.compared)])

    def _seeded(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return each trial with each seed of the comparison."""
        return [trial.with_seed(seed) for seed in self.comparison_seeds for trial in trials]

    @property
    def comparison_seeds(self) -> tuple[int, ...]:
        """Seeds of the comparison: those after the search's seed."""
        first = self.spec.training.seed + 1
        return tuple(range(first, first + self.spec.search.comparison_seeds))

    @property
    def compared_runs(self) -> int:
        """Runs of the comparison, after those of the search."""
        return 0 if self.repeats else len(self.comparison_seeds) * (1 + len(self.compared))

    @property
    def compared(self) -> tuple[MethodName, ...]:
        """Baselines of the comparison."""
        return tuple(dict.fromkeys(self.spec.search.baselines))


@dataclass(frozen=True)
class Plan(SearchOutline):
    """A checked search; its spec has absolute paths."""

    encoder: EncoderInfo
    """The encoder."""
    examples: dict[tuple[Split, str], int]
    """Number of examples that the search uses, by split and language."""
    training: BatchSchedule
    """The batches and steps of one trial, the longest that the search can propose."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of the data, the synonyms and the model, by name."""
    probe: Probe | None = None
    """What was tried with a few rows; None: nothing."""

    @property
    def evaluations(self) -> int:
        """Dev evaluations of one trial, the longest that the search can propose."""
        return self._evaluations(self.training)

    @property
    def work(self) -> tuple[int, int]:
        """Texts that all runs train on and that they score, at most.

        A proposal counts as the proposable method with the most work; so does each run of the best
        configuration, which may also be the paper's.
        """
        proposable = set(self.spec.method_names())
        first: set[MethodName] = {"ear"} if self.has_paper_trial else set()
        runs = Counter([*first, *self.baselines])
        runs[self._costliest(proposable)] += self.trials - runs.total()
        if self.compared_runs:
            best = self._costliest(proposable | first)
            for name in (best, *self.compared):
                runs[name] += len(self.comparison_seeds)
        runs[self._costliest(proposable | first)] += self.confirmation_runs
        trained = scored = 0
        for name, count in runs.items():
            of_one = self._work_of(name)
            trained += count * of_one[0]
            scored += count * of_one[1]
        return trained, scored

    @property
    def confirmation_runs(self) -> int:
        """Runs of the confirmation, at most: a soup may average all trials."""
        confirmation = self.spec.search.confirmation
        most = self.trials if self.spec.search.soups else 1 + confirmation.top
        return confirmation.seeds * min(most, self.trials)

    def schedule(self, method: MethodName) -> BatchSchedule:
        """Return the batches and steps of a trial of a method."""
        return BatchSchedule.of(self.training.lengths, self.spec.training, method)

    def _evaluations(self, schedule: BatchSchedule) -> int:
        return len(schedule.evaluation_steps(self.spec.training.evaluations_per_epoch))

    def _costliest(self, methods: Iterable[MethodName]) -> MethodName:
        return max(sorted(methods), key=self._work_of)

    def _work_of(self, method: MethodName) -> tuple[int, int]:
        """Texts that one run of a method trains on, views included, and that it scores."""
        schedule, count = self.schedule(method), _examples_by_split(self)
        views = 2 if PRESETS[method].terms else 1
        source = self.examples["dev", self.task.source_language]
        dev = count["dev"] if self.spec.data.dev_languages == "all" else source
        dev += self.spec.data.virtual_views * source
        return (
            schedule.steps * min(schedule.batch_size, count["train"]) * views,
            self._evaluations(schedule) * dev + count["test"],
        )


def make_plan_apart(spec: SearchSpec, prepared: bool = False) -> Plan:
    """Call :func:`make_probed_plan` in another process, to keep the driver's memory small.

    Reading a tokenizer of 250,000 pieces takes more than a gigabyte.

    Args:
        spec: A validated spec.
        prepared: Whether to also prepare the data and the encoder on this machine.

    Raises:
        UserError: As :func:`make_probed_plan`, or if the process was killed.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        try:
            plan = executor.submit(make_probed_plan, spec).result()
            if prepared:
                executor.submit(_prepare, plan.spec).result()
            return plan
        except BrokenProcessPool:
            raise UserError(
                f"model {spec.model}: the process that checks and prepares it was killed, most "
                "likely because this machine's memory is too small; take a smaller model or a "
                "machine with more memory"
            ) from None


def _prepare(spec: SearchSpec) -> None:
    """Prepare data and encoder; the driver names this function without importing torch."""
    from xlt_ray.data.preparation import prepare

    prepare(spec)


def make_probed_plan(spec: SearchSpec) -> Plan:
    """Make a plan, and try every method of it with a few rows.

    Args:
        spec: A validated spec.

    Raises:
        UserError: As :func:`make_plan` and :func:`xlt_ray.training.probe.probe`.
    """
    from xlt_ray.training.probe import probe

    plan, sample = _planned(spec)
    tried = probe(plan.spec, _methods_with_values(plan.spec), sample, plan.encoder)
    return replace(plan, probe=tried)


def make_plan(spec: SearchSpec) -> Plan:
    """Check everything that can be checked without the model's weights.

    Args:
        spec: A validated spec.

    Returns:
        The plan. Its spec has absolute paths, because workers run in other folders.

    Raises:
        UserError: If the task, its data, the model, the synonyms or their combination is wrong.
    """
    return _planned(spec)[0]


def _planned(spec: SearchSpec) -> tuple[Plan, TaskSample]:
    """Return the plan of :func:`make_plan`, and a few rows of its task."""
    from xlt_ray.encoders.loading import check_encoder
    from xlt_ray.method.synonyms import load_synonyms

    spec = _absolute(spec)
    task = task_of(spec)
    _check_objective(spec, task)
    examples, sample = _read(spec, task)
    _check_assessment(spec, task, examples)
    encoder = check_encoder(spec.model)
    _check_encoder_fits(spec, encoder)
    synonyms = load_synonyms(spec.method.view.synonyms)
    lengths = np.ones(examples["train", task.source_language], dtype=np.int64)
    training = _longest(lengths, spec, spec.method_names())
    longest = _longest(lengths, spec, _methods(spec))
    per_epoch = spec.training.evaluations_per_epoch
    evaluations = per_epoch * longest.steps // longest.steps_per_epoch
    if evaluations > MOST_EVALUATIONS:
        raise UserError(
            f"training.evaluations_per_epoch: {evaluations:,} dev evaluations per trial exceed the "
            f"limit of {MOST_EVALUATIONS:,}; lower it, training.epochs or "
            "training.max_steps"
        )
    inputs = fingerprints(task, synonyms, spec.model, encoder)
    return Plan(spec, task, encoder, examples, training, inputs), sample


def _read(spec: SearchSpec, task: TaskSpec) -> tuple[dict[tuple[Split, str], int], TaskSample]:
    """Read all data, to find every mistake; return the number of examples that are used, and a few
    of them."""
    from xlt_ray.data.sample import TaskSample, sample_rows
    from xlt_ray.data.sources import read_splits

    limits = {
        "train": spec.data.train_limit,
        "dev": spec.data.dev_limit,
        "test": spec.data.test_limit,
    }
    counts, some = {}, {}
    for key, examples in read_splits(task):
        used = examples.first(limits[key[0]])
        counts[key], some[key] = len(used.labels), sample_rows(used)
    return counts, TaskSample(task, some)


def _methods(spec: SearchSpec) -> set[MethodName]:
    """Return the names of all methods that a search may run."""
    return {method.name for method in _methods_with_values(spec)}


def _methods_with_values(spec: SearchSpec) -> list[MethodSpec]:
    """Return all methods that a search may run: those it can propose, the paper's, the baselines.

    Searched values other than name, kind of view and alignment are the spec's.
    """
    fixed: set[MethodName] = set(spec.search.baselines)
    if spec.search.parameters and spec.search.paper_trial:
        fixed.add("ear")
    alignments = spec.search.parameters.get("method.pull_alignment")
    searched = alignments.choices if isinstance(alignments, Categorical) else ()
    proposed = spec.methods()
    proposed += [
        method.model_copy(update={"pull_alignment": alignment})
        for method in proposed
        for alignment in searched
    ]
    return [*proposed, *(Trial.of_method(name).spec(spec).method for name in sorted(fixed))]


def _longest(lengths: np.ndarray, spec: SearchSpec, methods: Iterable[MethodName]) -> BatchSchedule:
    """Return the schedule of the method that trains longest."""
    schedules = [BatchSchedule.of(lengths, spec.training, name) for name in methods]
    return max(schedules, key=lambda schedule: schedule.steps)


def _absolute(spec: SearchSpec) -> SearchSpec:
    """Return the spec with absolute paths and the hub's names of models.

    Names of packaged files and of the hub stay.
    """

    def absolute(value: str | None) -> str | None:
        return str(Path(value).resolve()) if value and Path(value).exists() else value

    view = spec.method.view.model_copy(
        update={
            "synonyms": absolute(spec.method.view.synonyms)
            if spec.method.view.synonyms.endswith(".json")
            else spec.method.view.synonyms
        }
    )
    return spec.model_copy(
        update={
            "task": absolute(spec.task) if spec.task.endswith((".yaml", ".yml")) else spec.task,
            "model": absolute(hub_name(spec.model)),
            "data_dir": spec.data_dir and str(Path(spec.data_dir).resolve()),
            "method": spec.method.model_copy(update={"view": view}),
        }
    )


def _check_objective(spec: SearchSpec, task: TaskSpec) -> None:
    valid = objectives(task.source_language)
    if spec.search.objective not in valid:
        raise UserError(
            f"search.objective: '{spec.search.objective}' is not an objective"
            f"{nearest(spec.search.objective, valid)}"
        )
    if spec.data.dev_languages == "source" and spec.search.objective.endswith(ZERO_SHOT_MEAN):
        raise UserError(
            f"search.objective: {spec.search.objective} needs the target languages' dev sets; set "
            "data.dev_languages=all, or choose an objective of the source language"
        )


def _check_assessment(
    spec: SearchSpec, task: TaskSpec, examples: Mapping[tuple[Split, str], int]
) -> None:
    if not spec.assessment.generalized:
        return
    if not task.is_pair:
        raise UserError(
            f"assessment.generalized: {task.name} has one text column; cross-language pairs need a "
            "task with two text columns"
        )
    counts = {language: examples["test", language] for language in task.languages}
    odd = [language for language in counts if counts[language] != counts[task.source_language]]
    if odd:
        raise UserError(
            f"assessment.generalized: the test set of {task.name} is not parallel, it has "
            f"{counts[task.source_language]} examples in {task.source_language} and "
            f"{counts[odd[0]]} in {odd[0]}"
        )


def _check_encoder_fits(spec: SearchSpec, encoder: EncoderInfo) -> None:
    if spec.training.max_length > encoder.max_length:
        raise UserError(
            f"training.max_length: {spec.training.max_length} is more than the {encoder.max_length}"
            f" tokens that {spec.model} takes"
        )
    layer = _largest(spec, "method.pull_layer", spec.method.pull_layer)
    pulls = any("pull" in PRESETS[name].terms for name in _methods(spec))
    if pulls and layer >= encoder.layers:
        raise UserError(
            f"method.pull_layer: {layer} is out of range, {spec.model} has "
            f"{encoder.layers} layers (0 to {encoder.layers - 1})"
        )
    frozen = _largest(spec, "training.frozen_layers", spec.training.frozen_layers)
    if frozen > encoder.layers + 1:
        raise UserError(
            f"training.frozen_layers: {frozen} is more than the embeddings and the "
            f"{encoder.layers} layers of {spec.model}; give at most {encoder.layers + 1}"
        )
    if _largest(spec, "training.lora_rank", spec.training.lora_rank):
        from xlt_ray.encoders.lora import check_lora

        check_lora()


def _largest(spec: SearchSpec, key: str, value: int) -> int:
    """Return the largest value of a key with whole numbers that the search can propose."""
    searched = spec.search.parameters.get(key)
    if isinstance(searched, Categorical):
        return max([value, *(choice for choice in searched.choices if isinstance(choice, int))])
    return max(value, searched.high) if isinstance(searched, Integer) else value


def describe(plan: Plan) -> list[tuple[str, str]]:
    """Return the plan as lines of a name and a text, for the terminal."""
    return [
        *_describe_data(plan),
        *_describe_trials(plan),
        *_describe_cost(plan),
        *_describe_probe(plan),
    ]


def _describe_data(plan: Plan) -> list[tuple[str, str]]:
    task, encoder, count = plan.task, plan.encoder, _examples_by_split(plan)
    return [
        ("task", f"{task.name}: {task.source_language} -> {' '.join(task.target_languages)}"),
        (
            "model",
            f"{plan.spec.model} ({encoder.family}, {encoder.layers} layers, "
            f"hidden {encoder.hidden}, {encoder.vocabulary:,} pieces)",
        ),
        (
            "data",
            f"{count['train']:,} training, {count['dev']:,} dev, {count['test']:,} test "
            "examples over all languages",
        ),
    ]


def _describe_trials(plan: Plan) -> list[tuple[str, str]]:
    search = plan.spec.search
    searched = ", ".join(
        f"{key} ({distribution.distribution})" for key, distribution in search.parameters.items()
    )
    uses_targets = search.objective.endswith("/zero_shot_mean")
    lines = [
        ("searched", searched or "nothing: the spec's own values"),
        ("sampler", f"{search.sampler.name}, seed {search.seed}"),
        (
            "objective",
            search.objective + (" (uses target-language dev labels)" if uses_targets else ""),
        ),
        (
            "trials",
            f"{plan.trials - len(plan.baselines)}"
            + (f" and {', '.join(plan.baselines)}" if plan.baselines else "")
            + (", a seed each" if plan.repeats else ""),
        ),
    ]
    if plan.compared_runs:
        methods = ", ".join(LABELS[name] for name in plan.compared)
        seeds = f"{search.comparison_seeds} seed(s) each"
        lines.append(("comparison", f"the best and {methods}, {seeds}"))
    limits = [f"no more start after {search.time_budget}"] if search.time_budget else []
    if search.target is not None:
        limits.append(f"no more start once one has a dev objective of {search.target:g}")
    if limits:
        lines.append(("budget", ", ".join(limits)))
    confirmation = search.confirmation
    if confirmation.seeds:
        soup = " and the best soup with all its members" if search.soups else ""
        lines.append(
            (
                "confirmation",
                f"plain, the best {confirmation.top}{soup}, {confirmation.seeds} seed(s) each",
            )
        )
    return lines


def _describe_cost(plan: Plan) -> list[tuple[str, str]]:
    training, resources = plan.training, plan.spec.resources
    trained, scored = plan.work
    most = resources.max_workers_per_trial
    shorter = any(plan.schedule(name).steps < training.steps for name in plan.spec.method_names())
    longer = [
        f"; {LABELS[name]}: {plan.schedule(name).steps:,} steps"
        for name in dict.fromkeys(plan.spec.search.baselines)
        if plan.schedule(name).steps > training.steps
    ]
    return [
        (
            "a trial",
            f"{'at most ' if shorter else ''}{training.steps:,} steps of {training.batch_size}, "
            f"{plan.evaluations} dev evaluations, 1 test evaluation{''.join(longer)}",
        ),
        (
            "resources",
            f"{resources.workers_per_trial}{f' to {most}' if most else ''} worker(s) a trial, each "
            f"{resources.cpus_per_worker:g} CPU, {resources.gpus_per_worker:g} GPU",
        ),
        ("work", f"at most {trained:,} texts trained on and {scored:,} texts scored"),
    ]


def _describe_probe(plan: Plan) -> list[tuple[str, str]]:
    probe = plan.probe
    if probe is None:
        return []
    if probe.skipped:
        return [("tried", f"nothing: {probe.skipped}")]
    lines = [
        (
            "tried",
            f"a training step of {', '.join(probe.methods)} and an input of {probe.tokens} tokens, "
            f"in {probe.seconds:.1f} s",
        )
    ]
    unknown = {language: share for language, share in probe.unknown.items() if share > MOST_UNKNOWN}
    if unknown:
        shares = ", ".join(
            f"{language} {100 * share:.1f} %"
            for language, share in sorted(unknown.items(), key=lambda one: -one[1])
        )
        lines.append(
            (
                "warning",
                f"many pieces are unknown to the model's tokenizer: {shares}; a model cannot tell "
                "them apart, so choose one that was pretrained on these languages",
            )
        )
    return lines


def _examples_by_split(plan: Plan) -> dict[Split, int]:
    """Return the number of examples of each split, over all languages."""
    count: dict[Split, int] = {"train": 0, "dev": 0, "test": 0}
    for (split, _), examples in plan.examples.items():
        count[split] += examples
    return count


def parameters_of(spec: SearchSpec) -> dict[str, str]:
    """Return every key of the resolved spec with its value as text, for MLflow."""
    return {key: str(value) for key, value in flatten(spec.model_dump(mode="json")).items()}
