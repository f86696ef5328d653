"""Batches of examples of similar length, padding and prefetching.

The trainer and the prediction of evaluation sets use them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np

from xlt_ray.config.method import PRESETS, MethodName
from xlt_ray.config.spec import TrainingSpec

_BUCKET_BATCHES = 50
"""Batches whose examples are sorted together: enough for even lengths, few enough to mix."""


@dataclass(frozen=True)
class BatchSchedule:
    """The order of the training examples; it depends only on the fields.

    Every worker computes the same schedule and takes its share of each batch, so the batches do not
    depend on the number of workers, and training can resume from any step.
    """

    lengths: np.ndarray
    """Tokens of each example (examples,)."""
    batch_size: int
    """Examples of one optimiser step."""
    epochs: int
    """Passes over the examples."""
    max_steps: int | None
    """Optimiser steps at most."""
    seed: int
    """Seed of the order."""

    @classmethod
    def of(cls, lengths: np.ndarray, recipe: TrainingSpec, method: MethodName) -> Self:
        """Return the schedule of a training.

        Args:
            lengths: Tokens of each example (examples,).
            recipe: The fine-tuning recipe.
            method: The method, which may train for a multiple of the recipe's epochs and steps.
        """
        factor = PRESETS[method].epochs
        most = recipe.max_steps
        return cls(
            lengths,
            recipe.batch_size,
            factor * recipe.epochs,
            None if most is None else factor * most,
            recipe.seed,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass; the last one may be smaller."""
        return -(-len(self.lengths) // self.batch_size)

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        steps = self.steps_per_epoch * self.epochs
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def evaluations(self, per_epoch: int) -> int:
        """Dev evaluations of the whole training, or as many as it has steps if these are fewer.

        Args:
            per_epoch: Evaluations of an epoch, and of a training shorter than one.
        """
        epoch = min(self.steps_per_epoch, self.steps)
        return max(1, round(per_epoch * self.steps / epoch))

    def evaluation_steps(self, per_epoch: int) -> list[int]:
        """Steps (counted from 1) after which to evaluate, evenly spaced; the last is the end."""
        count = self.evaluations(per_epoch)
        return sorted({max(1, round(self.steps * (i + 1) / count)) for i in range(count)})

    def batches(self, first_step: int = 0) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield (step, epoch, example numbers) from a step on, step counted from 0."""
        for epoch in range(first_step // self.steps_per_epoch, self.epochs):
            start = epoch * self.steps_per_epoch
            for offset, batch in enumerate(self._epoch(epoch)):
                step = start + offset
                if step >= self.steps:
                    return
                if step >= first_step:
                    yield step, epoch, batch

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        generator = np.random.default_rng((self.seed, epoch))
        order = generator.permutation(len(self.lengths))
        batches: list[np.ndarray] = []
        span = self.batch_size * _BUCKET_BATCHES
        for start in range(0, len(order), span):
            bucket = order[start : start + span]
            bucket = bucket[np.argsort(self.lengths[bucket], kind="stable")]
            batches += [
                bucket[i : i + self.batch_size] for i in range(0, len(bucket), self.batch_size)
            ]
        rest = [batches.pop()] if len(batches[-1]) < self.batch_size else []
        generator.shuffle(batches)
        return batches + rest


def token_budget_batches(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Group examples of like length so that each padded batch holds at most `budget` tokens.

    Args:
        lengths: Tokens of each example (examples,).
        budget: Tokens of one batch, padding included; a longer example is a batch of its own.

    Returns:
        Example numbers of each batch, longest first, each example once.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        size = max(1, budget // int(lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


def micro_batches(examples: np.ndarray, tokens: np.ndarray, budget: int) -> list[np.ndarray]:
    """Split a batch into parts of like lengths and about equally many tokens.

    Args:
        examples: Example numbers (batch,).
        tokens: Tokens of each (batch,).
        budget: Approximate maximum of tokens per part; one example may exceed it.

    Returns:
        Example numbers of each part, longest examples first.
    """
    order = np.argsort(-tokens, kind="stable")
    sizes = tokens[order]
    count = min(len(examples), -(-int(sizes.sum()) // budget))
    if count == len(examples):
        # A split by tokens could still put two short examples together.
        return np.split(examples[order], range(1, count))
    middles = np.cumsum(sizes) - sizes / 2
    part = np.minimum(middles * count // sizes.sum(), count - 1)
    return np.split(examples[order], np.flatnonzero(np.diff(part)) + 1)


def pad(sequences: Sequence[np.ndarray], value: int, width: int = 0) -> np.ndarray:
    """Pad integer sequences on the right to the longest, at least `width`: int64."""
    longest = max(width, *map(len, sequences))
    padded = np.full((len(sequences), longest), value, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = sequence
    return padded


def pad_inputs(
    inputs: Mapping[str, Sequence[np.ndarray]], pad_id: int, width: int = 0
) -> dict[str, np.ndarray]:
    """Lay out a model's inputs as a padded batch.

    Args:
        inputs: `input_ids` of each text; `token_type_ids` and `words` where they are used.
        pad_id: The id that pads `input_ids`; `words` are padded with -1, others with 0.
        width: Least width of the batch in tokens.

    Returns:
        The inputs and their `attention_mask`, each (batch, tokens); and `tokens`, the positions
        of the real tokens in the flattened batch (real tokens,). All int64.
    """
    fill = {"input_ids": pad_id, "words": -1}
    arrays = {name: pad(rows, fill.get(name, 0), width) for name, rows in inputs.items()}
    lengths = np.array([len(ids) for ids in inputs["input_ids"]])
    mask = np.arange(arrays["input_ids"].shape[1]) < lengths[:, None]
    arrays["attention_mask"] = mask.astype(np.int64)
    arrays["tokens"] = np.flatnonzero(mask)
    return arrays


Item = TypeVar("Item")


def prefetch(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """Yield items in order while a thread prepares the next ones.

    Args:
        items: The iterator; only the thread uses it. An error that it raises is raised here, in
            place of the item that failed.
        depth: Maximum number of items prepared ahead; 0 starts no thread.
    """
    if depth == 0:
        yield from items
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        end = object()
        pending = deque(thread.submit(next, items, end) for _ in range(depth))
        while (item := pending.popleft().result()) is not end:
            pending.append(thread.submit(next, items, end))
            yield item  # type: ignore[misc]
