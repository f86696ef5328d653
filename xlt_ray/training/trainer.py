"""Fine-tuning on the source language: the loop, dev evaluation, selection, the test scores.

The worker of a trial (:mod:`xlt_ray.cluster.worker`) calls it. Ray and MLflow are unknown here:
:class:`Trainer` reports to a callback and reads and writes plain folders.
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
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from xlt_ray.config.spec import TrainingSpec
from xlt_ray.data.batching import BatchSchedule, prefetch
from xlt_ray.data.evaluation_set import EvaluationSet
from xlt_ray.distributed import Workers
from xlt_ray.encoders.lora import add_lora, merge_lora
from xlt_ray.evaluation.predict import class_probabilities
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.evaluation.scores import dev_scores, final_scores
from xlt_ray.names import HALVINGS, OBJECTIVE, PREEMPTED
from xlt_ray.training import checkpoint
from xlt_ray.training.build import TrialParts
from xlt_ray.training.checkpoint import Progress
from xlt_ray.training.ema import WeightAverage
from xlt_ray.training.faults import NonFiniteLoss
from xlt_ray.training.loss_sums import LossSums
from xlt_ray.training.memory import MicroBatches
from xlt_ray.training.optimizer import LearningRates, make_optimizer
from xlt_ray.training.selection import Selection

STEPS_BETWEEN_WARNINGS = 8
"""Steps between two checks for a preemption warning: the workers agree on the answer, which takes
them milliseconds."""

PREFETCHED_STEPS = 2
"""Steps whose batches, with their synonym views, are made while a GPU computes."""

Report = Callable[[Mapping[str, float], Path | None], None]
"""Receives the metrics of an evaluation and, on rank 0, a checkpoint's folder. The receiver owns
the folder: it may read it while training continues, and may delete it."""


@dataclass(frozen=True)
class Work:
    """One optimiser step's work on this worker."""

    number: int
    """The step, counted from 0."""
    epoch: int
    """The epoch, counted from 0."""
    size: int
    """Examples of all workers."""
    share: np.ndarray
    """Indices of this worker's examples (share,)."""
    weight: float
    """Factor of its summed losses."""
    tokens: int
    """Tokens of a micro-batch."""
    inputs: list[dict[str, Tensor]]
    """Its micro-batches."""


class Trainer:
    """Fine-tunes on the source language, selects on dev data, scores the selection on test data.

    Args:
        parts: The objective on the workers' device, the training set, and the dev and test sets of
            every language. Dev data selects the checkpoint; test data is scored once, at the end.
        recipe: The fine-tuning recipe.
        selection: The dev metric that selects, such as `dev/accuracy/en`.
        workers: This worker and its peers.
        folder: Where checkpoints are written; this worker's own.
        report: Called on every worker after each dev evaluation, and after the test evaluation,
            then with the folder of the selected model and its test predictions.
        preempted: Called on every worker each STEPS_BETWEEN_WARNINGS steps; true if a checkpoint
            is wanted at once.
    """

    def __init__(
        self,
        parts: TrialParts,
        recipe: TrainingSpec,
        *,
        selection: str,
        workers: Workers,
        folder: Path,
        report: Report,
        preempted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.objective, self.training_set, self.dev, self.test = parts
        self.classifier = self.objective.classifier
        self.recipe = recipe
        self.selection = selection
        self.workers = workers
        self.folder = folder
        self.report = report
        self.preempted = preempted
        self.schedule = BatchSchedule.of(
            self.training_set.lengths, recipe, self.objective.method.name
        )
        self.evaluation_steps = set(self.schedule.evaluation_steps(recipe.evaluations_per_epoch))
        if recipe.lora_rank:
            seed, lowest = recipe.initial_seed, recipe.frozen_layers + 1
            add_lora(self.classifier, recipe.lora_rank, seed, lowest)
        self.optimizer = make_optimizer(self.classifier, recipe)
        self.rates = LearningRates(self.optimizer, self.schedule.steps, recipe.warmup_share)
        self.average = WeightAverage(self.classifier, recipe.ema_decay)
        self.best_weights = folder / "best.safetensors"
        self.selected = Selection(
            self.classifier,
            self.best_weights,
            recipe.average_last,
            len(self.evaluation_steps),
            workers,
        )
        self.sums = LossSums()
        self._started = time.perf_counter()
        self._start_from(Progress())

    def resume(self, folder: Path) -> None:
        """Continue from a checkpoint of the same training; report its evaluations again.

        Args:
            folder: A whole checkpoint. Its evaluations are reported without a checkpoint.
        """
        if self.recipe.lora_rank and checkpoint.is_final(folder):
            merge_lora(self.classifier)
        self._start_from(
            checkpoint.load(
                folder, self.classifier, self.optimizer, self.best_weights, self.average
            )
        )
        for metrics in self.progress.reports:
            self.report(metrics, None)

    def train(self, memory_shortages: int = 0) -> None:
        """Train to the last step, then score the selected checkpoint on test data.

        Args:
            memory_shortages: How many earlier attempts ended for lack of memory. Each halves the
                micro-batches, as a shortage within this attempt does; the batch stays.

        Raises:
            NonFiniteLoss: If a loss term or the weights stop being finite, found at the next
                evaluation.
            OutOfMemory: If not even one example at a time fits.
            MemoryShortage: If an earlier attempt already had one example at a time.
        """
        self.micro_batches.halve_after(memory_shortages)
        self.model: torch.nn.Module = self.objective
        if self.workers.size > 1:
            self.model = DistributedDataParallel(self.objective)
        self.model.train()
        self._lap()
        # On a CPU a second thread would only take time from the first.
        ahead = 0 if self.workers.device.type == "cpu" else PREFETCHED_STEPS
        for work in prefetch(self._work(), ahead):
            self.step(work)
            if self.progress.step in self.evaluation_steps:
                self.evaluate()
            elif self.progress.step % STEPS_BETWEEN_WARNINGS == 0 and self.preempted():
                self._report_preemption()
        self.finish()

    def step(self, work: Work) -> None:
        """Take one optimiser step."""
        self.rates.set(work.number)
        self.sums = self._gradient(work)
        torch.nn.utils.clip_grad_norm_(self.objective.parameters(), self.recipe.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update()
        self.progress.step = work.number + 1

    def evaluate(self) -> None:
        """Score the dev sets, select weights, report."""
        progress = self.progress
        metrics = self.sums.means(self.workers)
        seconds = self._lap()
        progress.training_seconds += seconds
        metrics["train/examples_per_second"] = self.sums.examples / seconds
        self.sums = LossSums()
        progress.evaluations += 1
        with self.average.in_use():
            with self.selected.scored(progress.evaluations):
                probabilities = self._probabilities(self.dev)
            if not np.isfinite(probabilities).all():
                # The last step broke the weights; only the next one's loss would show it.
                raise NonFiniteLoss(f"the weights are not finite after step {progress.step}")
            metrics |= dev_scores(probabilities, self.dev)
            progress.evaluation_seconds += self._lap()
            self.selected.keep(metrics[self.selection], metrics, progress)
        metrics |= _progress_metrics(progress, self.schedule.steps)
        progress.reports.append(metrics)
        self.report(metrics, self.checkpoint(progress))
        progress.checkpoint_seconds += self._lap()

    def checkpoint(self, progress: Progress) -> Path | None:
        """Write everything that resuming needs; return its folder on rank 0, None elsewhere."""
        if self.workers.rank != 0:
            return None
        return checkpoint.save(
            self.folder, self.classifier, self.optimizer, self.best_weights, progress, self.average
        )

    def finish(self) -> None:
        """Score the selected weights on the test sets, once; report them with the model."""
        progress = self.progress
        self._lap()
        self.selected.load()
        if self.recipe.lora_rank:
            merge_lora(self.classifier)
        probabilities = self._probabilities(self.test)
        metrics = final_scores(probabilities, self.test)
        progress.evaluation_seconds += self._lap()
        written = None
        if self.workers.rank == 0:
            predictions = Predictions.of(probabilities, self.test)
            written = checkpoint.save_selected(self.folder, self.classifier, predictions, progress)
        # After the checkpoint, which a resumed training may load to score the test sets again.
        progress.evaluations += 1
        for name, value in progress.selected.items():
            metrics["selected/" + name.removeprefix("dev/")] = value
        self.report(metrics | _progress_metrics(progress, self.schedule.steps), written)

    def _probabilities(self, data: EvaluationSet) -> np.ndarray:
        """Return the probability of every class (texts, classes)."""
        return class_probabilities(
            self.classifier,
            data.inputs,
            pad_id=data.pad_id,
            workers=self.workers,
            token_budget=self.micro_batches.scoring_tokens(),
        )

    def _start_from(self, progress: Progress) -> None:
        self.progress = progress
        self.micro_batches = MicroBatches(
            self.training_set, self.workers, progress, self.recipe.micro_batch_tokens
        )

    def _work(self) -> Iterator[Work]:
        for number, epoch, batch in self.schedule.batches(self.progress.step):
            share, weight = workers_share(batch, self.workers)
            tokens = self.micro_batches.tokens
            inputs = self.micro_batches.inputs(share, epoch)
            yield Work(number, epoch, len(batch), share, weight, tokens, inputs)

    def _gradient(self, work: Work) -> LossSums:
        """Set the gradient; return the sums of the loss terms with this step's added."""
        inputs = work.inputs
        if work.tokens != self.micro_batches.tokens:
            # Memory was short after these micro-batches were made.
            inputs = self.micro_batches.inputs(work.share, work.epoch)
        while True:
            _seed_dropout(self.recipe.seed, work.number, self.workers.rank)
            sums = self.sums.copy()
            sums.step = work.number + 1
            sums.examples += work.size
            try:
                accumulate(self.model, inputs, work.weight, self.workers, sums)
                return sums
            except torch.OutOfMemoryError:
                if self.workers.size > 1:
                    # The others wait for a gradient that this worker can no longer compute.
                    raise
            # Outside the handler: the error's traceback holds the computed tensors.
            self.optimizer.zero_grad(set_to_none=True)
            self.micro_batches.halve(work.share, len(inputs), step=sums.step)
            inputs = self.micro_batches.inputs(work.share, work.epoch)

    def _report_preemption(self) -> None:
        """Write a checkpoint between evaluations, because a node is about to be preempted."""
        seconds = self.progress.training_seconds + time.perf_counter() - self._started
        now = replace(self.progress, training_seconds=seconds)
        written = self.checkpoint(now)
        self.report({**_progress_metrics(now, self.schedule.steps), PREEMPTED: 1}, written)

    def _lap(self) -> float:
        """Return the seconds since the last call, and start anew."""
        now = time.perf_counter()
        seconds = now - self._started
        self._started = now
        return seconds


def workers_share(batch: np.ndarray, workers: Workers) -> tuple[np.ndarray, float]:
    """Return this worker's examples of a batch, and the weight of their summed losses.

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
