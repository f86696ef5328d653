"""Micro-batches by tokens, and how a memory shortage halves them."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.support.core_workers import run_workers
from xlt_ray.data.training_set import TrainingSet
from xlt_ray.distributed import Workers
from xlt_ray.training.checkpoint import Progress
from xlt_ray.training.faults import MemoryShortage, OutOfMemory
from xlt_ray.training.memory import MicroBatches, suitable_tokens

CPU = torch.device("cpu")
ALL = np.arange(4)


class Texts:
    """Four examples of 10, 20, 30 and 40 tokens; a batch is the examples' numbers."""

    lengths = np.array([10, 20, 30, 40])

    def tokens(self, examples: np.ndarray) -> np.ndarray:
        return self.lengths[examples]

    def batch(self, examples: np.ndarray, epoch: int, device: torch.device) -> dict[str, Any]:
        return {"examples": torch.as_tensor(examples)}


def micro_batches(progress: Progress, tokens: int | None = 100) -> MicroBatches:
    return MicroBatches(cast(TrainingSet, Texts()), Workers(), progress, tokens)


@pytest.mark.parametrize("tokens", [1, 40, 60, 100])
def test_every_example_is_in_one_micro_batch_of_few_enough_tokens(tokens: int) -> None:
    parts = [
        part["examples"].numpy() for part in micro_batches(Progress(), tokens).inputs(ALL, epoch=0)
    ]
    assert sorted(np.concatenate(parts)) == ALL.tolist()
    for part in parts:
        assert len(part) == 1 or Texts.lengths[part].sum() <= tokens


def test_without_a_number_the_device_decides() -> None:
    assert micro_batches(Progress(), None).tokens == suitable_tokens(CPU, bf16=False)


def test_a_shortage_halves_the_tokens_and_the_progress_keeps_them() -> None:
    progress = Progress()
    micro_batches(progress).halve(ALL, parts=1, step=1)
    assert (progress.micro_batch_tokens, progress.halvings) == (50, 1)
    # Resumed, it starts with them.
    resumed = micro_batches(progress)
    assert resumed.tokens == 50
    # 30 tokens did not fit: half of the budget, 25, would be no less than half of them.
    resumed.halve(ALL[:2], parts=1, step=2)
    assert (progress.micro_batch_tokens, progress.halvings) == (15, 2)


def test_texts_are_scored_in_smaller_batches_only_after_a_shortage() -> None:
    usual = micro_batches(Progress()).scoring_tokens()
    assert usual == micro_batches(Progress(), tokens=1).scoring_tokens() > 100
    progress = Progress()
    small = micro_batches(progress)
    small.halve_after(1)
    assert small.scoring_tokens() == small.tokens == 50
    # A large micro-batch of a GPU is still larger after it was halved.
    large = micro_batches(Progress(), tokens=16 * usual)
    large.halve_after(1)
    assert large.scoring_tokens() == usual < large.tokens


def scoring_tokens_on_worker(workers: Workers) -> int:
    """Of workers on unlike machines, which suit different micro-batches."""
    own = MicroBatches(cast(TrainingSet, Texts()), workers, Progress(), 100 * (1 + workers.rank))
    own.halve_after(1)
    return own.scoring_tokens()


def test_workers_agree_on_the_batches_that_they_share() -> None:
    assert run_workers(2, scoring_tokens_on_worker) == [50, 50]


def test_single_examples_that_do_not_fit_end_the_trial() -> None:
    with pytest.raises(OutOfMemory, match="in step 7 with one example of up to 40 tokens"):
        micro_batches(Progress()).halve(ALL, parts=4, step=7)


def test_shortages_of_earlier_attempts_halve_once_each() -> None:
    progress = Progress()
    micro_batches(progress).halve_after(0)
    assert (progress.micro_batch_tokens, progress.halvings) == (None, 0)
    micro_batches(progress).halve_after(2)
    assert (progress.micro_batch_tokens, progress.halvings) == (25, 2)
    # Smaller ones than that stay.
    progress = Progress(micro_batch_tokens=5, halvings=4)
    micro_batches(progress).halve_after(2)
    assert (progress.micro_batch_tokens, progress.halvings) == (5, 4)


def test_shortages_end_the_trial_after_an_attempt_with_single_examples() -> None:
    # The fourth attempt had 100 / 8 tokens, the fifth 100 / 16, less than any example.
    micro_batches(Progress()).halve_after(4)
    # Of the machine's memory others may take most, so the trial may run again.
    with pytest.raises(MemoryShortage, match="in step 4 with one example of up to 40 tokens"):
        micro_batches(Progress(step=3)).halve_after(5)
