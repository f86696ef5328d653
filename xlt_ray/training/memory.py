"""Micro-batches by tokens, and batches to score, halved when memory is short;
:class:`xlt_ray.training.trainer.Trainer` uses them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from xlt_ray.data.batching import micro_batches
from xlt_ray.data.training_set import TrainingSet
from xlt_ray.distributed import Workers
from xlt_ray.evaluation.predict import TOKEN_BUDGET
from xlt_ray.training.checkpoint import Progress
from xlt_ray.training.faults import MemoryShortage, OutOfMemory


def suitable_tokens(device: torch.device, bf16: bool) -> int:
    """Return how many tokens a forward pass best has.

    The caches of a CPU hold about 1,024. With bf16 units, products take less time, so that casting
    the weights for each micro-batch would cost more of it. GPUs need more to be busy.

    Args:
        device: Where the model computes.
        bf16: Whether its matrix products run in bf16.
    """
    if device.type != "cpu":
        return 16_384
    return 2048 if bf16 else 1024


class MicroBatches:
    """Splits a worker's share of a batch into micro-batches that fit into memory.

    Args:
        training_set: The training examples.
        workers: This worker and its peers.
        progress: Gets the reduced number of tokens, so that a resumed training starts with it.
        tokens: Tokens of a micro-batch (>= 1); None: as many as suit the device.
    """

    def __init__(
        self,
        training_set: TrainingSet,
        workers: Workers,
        progress: Progress,
        tokens: int | None = None,
    ) -> None:
        self._training_set = training_set
        self._workers = workers
        self._device = workers.device
        self._progress = progress
        self._budget = tokens or suitable_tokens(workers.device, workers.bf16)

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch now."""
        return self._progress.micro_batch_tokens or self._budget

    def scoring_tokens(self) -> int:
        """Return the tokens of a batch that an evaluation scores, the same on every worker.

        They are no more than those of the micro-batches after a shortage, which may be one of the
        evaluation itself.
        """
        own = min(TOKEN_BUDGET, self._progress.micro_batch_tokens or TOKEN_BUDGET)
        # Workers share the batches, so they have to make the same ones, on unlike machines too.
        return -int(self._workers.maximum(torch.tensor(-own, device=self._device)))

    def inputs(self, share: np.ndarray, epoch: int) -> list[dict[str, Tensor]]:
        """Return the model inputs of some examples, one micro-batch an item.

        Args:
            share: Indices of the examples (share,).
            epoch: The epoch, which decides the draws of the views.
        """
        parts = micro_batches(share, self._training_set.tokens(share), self.tokens)
        return [self._training_set.batch(part, epoch, self._device) for part in parts]

    def halve_after(self, shortages: int) -> None:
        """Halve the micro-batches once for each earlier attempt that ended for lack of memory.

        Raises:
            MemoryShortage: If the last attempt already had one example at a time.
        """
        if not shortages:
            return
        progress = self._progress
        tokens = self._training_set.tokens(np.arange(len(self._training_set.lengths)))
        if self._budget >> (shortages - 1) <= tokens.min():
            raise MemoryShortage(_one_at_a_time(progress.step + 1, int(tokens.max())))
        halved = max(1, self._budget >> shortages)
        progress.micro_batch_tokens = min(progress.micro_batch_tokens or halved, halved)
        progress.halvings = max(progress.halvings, shortages)

    def halve(self, share: np.ndarray, parts: int, step: int) -> None:
        """Halve the micro-batches after the device ran out of memory.

        Args:
            share: Indices of the examples that did not fit (share,).
            parts: Micro-batches that they were split into.
            step: The step, counted from 1.

        Raises:
            OutOfMemory: If each example already was a micro-batch of its own.
        """
        tokens = self._training_set.tokens(share)
        if parts == len(share):
            raise OutOfMemory(_one_at_a_time(step, int(tokens.max())))
        if self._device.type != "cpu":
            torch.cuda.empty_cache()
        self._progress.micro_batch_tokens = max(1, min(self.tokens, int(tokens.sum())) // 2)
        self._progress.halvings += 1


def _one_at_a_time(step: int, tokens: int) -> str:
    return (
        f"out of memory in step {step} with one example of up to {tokens} tokens at a time, views "
        "included; lower training.max_length, take a smaller model or, where the machine's memory "
        "is short, run fewer trials side by side (--max-concurrent)"
    )
