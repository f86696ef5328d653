"""Check everything about a search that needs no training, and make its plan. The CLI calls it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xlt_ray.config.method import PRESETS, MethodName, MethodSpec
from xlt_ray.config.space import Categorical
from xlt_ray.config.spec import SearchSpec
from xlt_ray.config.task import Split, TaskSpec, available_tasks, task_of
from xlt_ray.data.batching import BatchSchedule
from xlt_ray.encoders.catalogue import hub_name
from xlt_ray.encoders.loading import EncoderInfo
from xlt_ray.errors import UserError, nearest
from xlt_ray.evaluation.scores import objectives
from xlt_ray.method.synonyms import NAMED
from xlt_ray.names import ZERO_SHOT_MEAN
from xlt_ray.search import data_warnings
from xlt_ray.search.inputs import equal_files, fingerprints
from xlt_ray.search.plan import Plan, longest_recipe, with_largest_batches
from xlt_ray.search.trials import Trial

if TYPE_CHECKING:
    from xlt_ray.data.sample import TaskSample

MOST_EVALUATIONS = 100_000
"""Upper limit of dev evaluations of one trial, because a list of them is kept."""


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
            if prepared and (warning := executor.submit(_prepare, plan.spec).result()):
                plan = replace(plan, warnings=(*plan.warnings, warning))
            return plan
        except BrokenProcessPool:
            raise UserError(
                f"model {spec.model}: the process that checks and prepares it was killed, most "
                "likely because this machine's memory is too small; take a smaller model or a "
                "machine with more memory"
            ) from None


def _prepare(spec: SearchSpec) -> str:
    """Prepare data and encoder; the driver names this function without importing torch.

    Returns:
        A warning, or an empty text.
    """
    from xlt_ray.data.preparation import prepare

    return data_warnings.of_whole_table(prepare(spec).untrimmed)


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
    examples, sample, odd = _read(spec, task)
    _check_assessment(spec, task, examples)
    encoder = check_encoder(spec.model)
    _check_encoder_fits(spec, encoder)
    synonyms = load_synonyms(spec.method.view.synonyms)
    lengths = np.ones(examples["train", task.source_language], dtype=np.int64)
    training = _longest(lengths, spec, spec.method_names())
    longest = _longest(lengths, spec, _methods(spec))
    per_epoch = longest_recipe(spec).evaluations_per_epoch
    evaluations = with_largest_batches(longest, spec).evaluations(per_epoch)
    if evaluations > MOST_EVALUATIONS:
        raise UserError(
            f"training.evaluations_per_epoch: {evaluations:,} dev evaluations per trial exceed the "
            f"limit of {MOST_EVALUATIONS:,}; lower it, training.epochs or "
            "training.max_steps"
        )
    inputs = fingerprints(task, synonyms, spec.model, encoder)
    odd += [data_warnings.of_equal_files(equal_files(task)), data_warnings.of_tokenizer(encoder)]
    if any(method.view_kind == "synonym" for method in _methods_with_values(spec)):
        training_rows = sample.examples["train", task.source_language]
        odd.append(data_warnings.of_synonyms(training_rows, synonyms))
    warnings = tuple(filter(None, odd))
    return Plan(spec, task, encoder, examples, training, inputs, warnings), sample


def _read(
    spec: SearchSpec, task: TaskSpec
) -> tuple[dict[tuple[Split, str], int], TaskSample, list[str]]:
    """Read all data, to find every mistake.

    Returns:
        The number of examples that are used, a few of them, and warnings.
    """
    from xlt_ray.data.sample import TaskSample, sample_rows
    from xlt_ray.data.sources import read_splits

    limits = {
        "train": spec.data.train_limit,
        "dev": spec.data.dev_limit,
        "test": spec.data.test_limit,
    }
    counts, some, invisible, cut = {}, {}, {}, {}
    odd: list[str] = []
    for key, examples in read_splits(task):
        used = examples.first(limits[key[0]])
        counts[key], some[key] = len(used.labels), sample_rows(used)
        invisible[key] = data_warnings.invisible_rows(used)
        if key[0] == "train":
            odd.append(data_warnings.of_classes(task, used.labels, limits["train"]))
        elif len(used.labels) < len(examples.labels):
            cut[key] = used.labels
    odd.append(data_warnings.of_cut_classes(task, cut))
    odd.append(data_warnings.of_invisible(task, invisible, counts))
    return counts, TaskSample(task, some), odd


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
    recipe = longest_recipe(spec)
    schedules = [BatchSchedule.of(lengths, recipe, name) for name in methods]
    return max(schedules, key=lambda schedule: schedule.steps)


def _absolute(spec: SearchSpec) -> SearchSpec:
    """Return the spec with absolute paths and the hub's names of models.

    Names of packaged files and of the hub stay.
    """

    def absolute(value: str) -> str:
        path = Path(expanduser(value))
        return str(path.resolve()) if path.exists() else value

    view, dictionary = spec.method.view, spec.method.view.synonyms
    if dictionary not in NAMED:
        view = view.model_copy(update={"synonyms": absolute(dictionary)})
    return spec.model_copy(
        update={
            "task": spec.task if spec.task in available_tasks() else absolute(spec.task),
            "model": absolute(hub_name(spec.model)),
            "data_dir": spec.data_dir and str(Path(expanduser(spec.data_dir)).resolve()),
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
    layer = max(spec.reachable("method.pull_layer", spec.method.pull_layer))
    pulls = any("pull" in PRESETS[name].terms for name in _methods(spec))
    if pulls and layer >= encoder.layers:
        raise UserError(
            f"method.pull_layer: {layer} is out of range, {spec.model} has "
            f"{encoder.layers} layers (0 to {encoder.layers - 1})"
        )
    frozen = max(spec.reachable("training.frozen_layers", spec.training.frozen_layers))
    if frozen > encoder.layers:
        raise UserError(
            f"training.frozen_layers: {frozen} is more than the {encoder.layers} layers of "
            f"{spec.model}; give at most {encoder.layers}"
        )
    if max(spec.reachable("training.lora_rank", spec.training.lora_rank)):
        from xlt_ray.encoders.lora import check_lora

        check_lora()
