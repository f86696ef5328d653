"""Fine-tuning with the method's targets: batches, optimiser steps, dev evaluation, selection.

Knows neither Ray nor MLflow: it reports to a callback and reads and writes plain folders.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from xlt_ray.config.spec import TrainingSpec
from xlt_ray.data.batching import TrainingPlan, micro_batches, prefetch
from xlt_ray.data.evaluation_set import EvaluationSet
from xlt_ray.data.training_set import TrainingSet
from xlt_ray.distributed import Workers
from xlt_ray.evaluation.accuracy import accuracy_metrics
from xlt_ray.evaluation.predict import predict_with_probability
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.method.objective import Objective
from xlt_ray.names import HALVINGS, OBJECTIVE, PREEMPTED
from xlt_ray.training import checkpoint
from xlt_ray.training.checkpoint import Progress
from xlt_ray.training.faults import OutOfMemory
from xlt_ray.training.loss_sums import LossSums

MICRO_BATCH_TOKENS = (1024, 16_384)
"""Tokens of one forward pass on a CPU, whose caches hold no more, and on a GPU, which has to be
kept busy."""

STEPS_BETWEEN_WARNINGS = 8
"""Steps between two looks for a warning that a node is taken away: the workers agree on it, which
takes them milliseconds."""

PREFETCHED_STEPS = 2
"""Steps whose batches, with their synonym views, are made while a GPU computes."""

Report = Callable[[Mapping[str, float], Path | None], None]
"""Receives the metrics of an evaluation and, on rank 0, the folder of a checkpoint, which is its
own: it may still read it while training goes on, and may delete it."""


@dataclass(frozen=True)
class _Step:
    """An optimiser step's work on this worker."""

    number: int
    """Counted from 0."""
    epoch: int
    size: int
    """Examples of all workers."""
    share: np.ndarray
    """Numbers of this worker's examples (share,)."""
    weight: float
    """Factor of its summed losses."""
    inputs: list[dict[str, Tensor]]
    """Its micro-batches."""


def fine_tune(
    objective: Objective,
    training_set: TrainingSet,
    dev: EvaluationSet,
    test: EvaluationSet,
    recipe: TrainingSpec,
    *,
    selection: str,
    workers: Workers,
    folder: Path,
    report: Report,
    resume: Path | None = None,
    memory_shortages: int = 0,
    preempted: Callable[[], bool] = lambda: False,
) -> None:
    """Fine-tune on the source language, select on dev data, score the selection on test data.

    Args:
        objective: The classifier with its loss terms, on the workers' device.
        training_set: The source language's training examples.
        dev: Dev data of every language; selects the checkpoint.
        test: Test data of every language; looked at once, at the end.
        recipe: The fine-tuning recipe.
        selection: The dev metric that selects, such as `dev/accuracy/en`.
        workers: This worker and its peers.
        folder: Where checkpoints are written; this worker's own.
        report: Called on every worker after each dev evaluation, and after the test evaluation,
            then with the folder of the selected model and its test predictions.
        resume: A checkpoint folder of the same training to go on from; its evaluations are reported
            again, without a checkpoint.
        memory_shortages: How many earlier attempts were ended for want of memory: each halves the
            micro-batches, as a shortage within this attempt does.
        preempted: Called on every worker each STEPS_BETWEEN_WARNINGS steps; true where a checkpoint
            is wanted at once.

    Raises:
        NonFiniteLoss: If a loss term stops being finite, found at the next evaluation.
        OutOfMemory: If one example alone does not fit. Larger micro-batches that do not are halved,
            with as many more of them: the effective batch stays.
    """
    classifier = objective.classifier
    plan = TrainingPlan(
        training_set.lengths, recipe.batch_size, recipe.epochs, recipe.max_steps, recipe.seed
    )
    optimizer = make_optimizer(
        objective,
        recipe.learning_rate,
        eps=recipe.adam_epsilon,
        weight_decay=recipe.weight_decay,
    )
    best_weights = folder / "best.safetensors"
    progress = Progress()
    if resume is not None:
        progress = checkpoint.load(resume, classifier, optimizer, best_weights)
        for metrics in progress.reports:
            report(metrics, None)
    model: torch.nn.Module = objective
    if workers.size > 1:
        model = DistributedDataParallel(objective)

    on_cpu = workers.device.type == "cpu"
    budget = recipe.micro_batch_tokens or MICRO_BATCH_TOKENS[not on_cpu]
    if memory_shortages:
        tokens = training_set.tokens(np.arange(len(training_set.lengths)))
        if budget >> (memory_shortages - 1) <= tokens.min():
            raise OutOfMemory(_one_at_a_time(progress.step + 1, int(tokens.max())))
        halved = max(1, budget >> memory_shortages)
        progress.micro_batch_tokens = min(progress.micro_batch_tokens or halved, halved)
        progress.halvings = max(progress.halvings, memory_shortages)

    def inputs_of(share: np.ndarray, epoch: int) -> list[dict[str, Tensor]]:
        tokens = training_set.tokens(share)
        parts = micro_batches(share, tokens, progress.micro_batch_tokens or budget)
        return [training_set.batch(part, epoch, workers.device) for part in parts]

    def steps() -> Iterator[_Step]:
        for number, epoch, batch in plan.batches(progress.step):
            share, weight = workers_share(batch, workers)
            yield _Step(number, epoch, len(batch), share, weight, inputs_of(share, epoch))

    def gradient(step: _Step) -> LossSums:
        """Set the gradient; return the sums of the loss terms with this step's."""
        inputs = step.inputs
        while True:
            _seed_dropout(recipe.seed, step.number, workers.rank)
            found = sums.copy()
            found.step = step.number + 1
            found.examples += step.size
            try:
                accumulate(model, inputs, step.weight, workers, found)
                return found
            except torch.OutOfMemoryError:
                if workers.size > 1:
                    # The others wait for a gradient that this one cannot compute any more.
                    raise
                tokens = training_set.tokens(step.share)
                if len(inputs) == len(step.share):
                    raise OutOfMemory(_one_at_a_time(found.step, int(tokens.max()))) from None
            # Out of the handler: the error's traceback holds what was computed.
            optimizer.zero_grad(set_to_none=True)
            if not on_cpu:
                torch.cuda.empty_cache()
            progress.micro_batch_tokens = max(
                1, min(progress.micro_batch_tokens or budget, int(tokens.sum())) // 2
            )
            progress.halvings += 1
            inputs = inputs_of(step.share, step.epoch)

    evaluation_steps = set(plan.evaluation_steps(recipe.evaluations_per_epoch))
    sums = LossSums()
    model.train()
    started = time.perf_counter()
    # On a CPU a second thread would only take time from the first.
    for step in prefetch(steps(), 0 if on_cpu else PREFETCHED_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * (1 - step.number / plan.steps)
        sums = gradient(step)
        torch.nn.utils.clip_grad_norm_(objective.parameters(), recipe.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        progress.step = step.number + 1
        if progress.step not in evaluation_steps:
            if progress.step % STEPS_BETWEEN_WARNINGS == 0 and preempted():
                seconds = progress.training_seconds + time.perf_counter() - started
                now = replace(progress, training_seconds=seconds)
                written = None
                if workers.rank == 0:
                    written = checkpoint.save(folder, classifier, optimizer, best_weights, now)
                report({**_progress_metrics(now, plan.steps), PREEMPTED: 1}, written)
            continue

        metrics = sums.means(workers)
        seconds = time.perf_counter() - started
        progress.training_seconds += seconds
        metrics["train/examples_per_second"] = sums.examples / seconds
        sums = LossSums()
        started = time.perf_counter()
        metrics |= _score(classifier, dev, "dev", workers)[1]
        progress.evaluation_seconds += time.perf_counter() - started
        progress.evaluations += 1
        started = time.perf_counter()
        if metrics[selection] > progress.best_objective:
            progress.best_objective = metrics[selection]
            progress.best_step = progress.step
            progress.selected = {k: v for k, v in metrics.items() if k.startswith("dev/")}
            if workers.rank == 0:
                save_model(classifier, str(best_weights))
        metrics |= _progress_metrics(progress, plan.steps)
        progress.reports.append(metrics)
        written = None
        if workers.rank == 0:
            written = checkpoint.save(folder, classifier, optimizer, best_weights, progress)
        report(metrics, written)
        progress.checkpoint_seconds += time.perf_counter() - started
        started = time.perf_counter()

    started = time.perf_counter()
    _load_selected(classifier, best_weights, workers)
    predictions, metrics = _score(classifier, test, "test", workers)
    progress.evaluation_seconds += time.perf_counter() - started
    progress.evaluations += 1
    written = None
    if workers.rank == 0:
        written = checkpoint.save_selected(folder, classifier, predictions, progress)
    for name, value in progress.selected.items():
        metrics["selected/" + name.removeprefix("dev/")] = value
    report(metrics | _progress_metrics(progress, plan.steps), written)


def _one_at_a_time(step: int, tokens: int) -> str:
    return (
        f"out of memory in step {step} with one example of up to {tokens} tokens at a time, views "
        "included; lower training.max_length, take a smaller model or, where the machine's memory "
        "is short, run fewer trials side by side (--max-concurrent)"
    )


def make_optimizer(
    objective: torch.nn.Module, learning_rate: float, eps: float = 1e-8, weight_decay: float = 0.0
) -> torch.optim.Optimizer:
    """AdamW over all parameters, in one fused pass."""
    return torch.optim.AdamW(
        objective.parameters(), lr=learning_rate, eps=eps, weight_decay=weight_decay, fused=True
    )


def workers_share(batch: np.ndarray, workers: Workers) -> tuple[np.ndarray, float]:
    """This worker's examples of a batch, and the weight of their summed losses.

    The loss is summed and divided by the whole batch's size, so that however the batch is split,
    the gradient is that of its mean. DistributedDataParallel averages over workers, hence their
    number as a factor.

    Args:
        batch: Example numbers of one optimiser step (batch,).
        workers: This worker and its peers.
    """
    share = batch[workers.rank :: workers.size]
    if len(share) == 0:
        # A last batch smaller than the workers: take part in the all-reduce, adding nothing.
        return batch[:1], 0.0
    return share, workers.size / len(batch)


def accumulate(
    model: torch.nn.Module,
    micro_batches: Sequence[Mapping[str, Tensor]],
    weight: float,
    workers: Workers,
    sums: LossSums,
) -> None:
    """Add the gradient of a worker's share of a batch.

    Args:
        model: The objective, as such or in DistributedDataParallel.
        micro_batches: Its inputs.
        weight: Factor of the summed losses.
        workers: This worker and its peers.
        sums: Gets the loss terms.
    """
    for number, inputs in enumerate(micro_batches):
        synchronise: AbstractContextManager[Any] = nullcontext()
        if isinstance(model, DistributedDataParallel) and number < len(micro_batches) - 1:
            synchronise = model.no_sync()
        with synchronise:
            with workers.autocast():
                terms = model(**inputs)
            (terms["total"].sum() * weight).backward()
        if weight:
            sums.add(terms)
        else:
            sums.add({name: value[:0] for name, value in terms.items()})


def _seed_dropout(seed: int, step: int, rank: int) -> None:
    """Make dropout a function of (seed, step, rank), so that resuming repeats it exactly."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0]))


def _score(
    classifier: PreTrainedModel, data: EvaluationSet, split: str, workers: Workers
) -> tuple[Predictions, dict[str, float]]:
    """Predictions and accuracies."""
    predicted, probability = predict_with_probability(
        classifier, data.inputs, pad_id=data.pad_id, workers=workers
    )
    metrics = accuracy_metrics(
        split, predicted, data.labels, data.language, data.languages, data.source
    )
    return (
        Predictions(predicted, data.labels, data.language, data.languages, probability),
        metrics,
    )


def _progress_metrics(progress: Progress, steps: int) -> dict[str, float]:
    faults = {HALVINGS: progress.halvings} if progress.halvings else {}
    return faults | {
        OBJECTIVE: progress.best_objective,
        "step": progress.step,
        "steps": steps,
        "evaluations": progress.evaluations,
        "best_step": progress.best_step,
        "time/training_seconds": progress.training_seconds,
        "time/evaluation_seconds": progress.evaluation_seconds,
        "time/checkpoint_seconds": progress.checkpoint_seconds,
    }


def _load_selected(classifier: PreTrainedModel, best_weights: Path, workers: Workers) -> None:
    """Load rank 0's selected weights on every worker."""
    if workers.rank == 0:
        load_model(classifier, str(best_weights))
    if workers.size > 1:
        for tensor in classifier.state_dict().values():
            torch.distributed.broadcast(tensor, src=0)
