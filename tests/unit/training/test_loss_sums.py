"""Means of the loss terms, and the term that breaks first."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.core_workers import run_workers
from xlt_ray.distributed import Workers
from xlt_ray.training.faults import NonFiniteLoss
from xlt_ray.training.loss_sums import LossSums


def two_steps(workers: Workers) -> dict[str, float]:
    """Sums of two steps of 6 examples, half of them on each of two workers."""
    sums = LossSums()
    for sums.step in (1, 2):
        sums.examples += 6
        values = torch.arange(6.0)[workers.rank :: workers.size] * sums.step
        # As two micro-batches.
        for part in (values[:1], values[1:]):
            sums.add({"push": part, "distance": part / 10})
    return sums.means(workers)


def test_means_are_over_all_examples_of_all_workers() -> None:
    # (0 + ... + 5) * (1 + 2) / 12
    expected = {"train/loss/push": 3.75, "train/embedding_distance": 0.375}
    assert two_steps(Workers()) == pytest.approx(expected)
    for result in run_workers(2, two_steps):
        assert result == pytest.approx(expected)


def test_sums_are_in_double_precision() -> None:
    """In single precision, small terms would be lost after a large one."""
    sums = LossSums(examples=1001, step=1)
    sums.add({"push": torch.tensor([1e8])})
    for _ in range(1000):
        sums.add({"push": torch.tensor([1.0])})
    assert sums.means(Workers())["train/loss/push"] == (1e8 + 1000) / 1001


def test_a_copy_takes_terms_that_the_original_does_not() -> None:
    """A step that runs out of memory adds to a copy, which is dropped."""
    sums = LossSums(examples=2, step=1)
    sums.add({"push": torch.tensor([1.0, 3.0])})
    copied = sums.copy()
    copied.step, copied.examples = 2, 3
    copied.add({"push": torch.tensor([math.nan]), "pull": torch.tensor([1.0])})
    assert sums.means(Workers()) == {"train/loss/push": 2.0}
    with pytest.raises(NonFiniteLoss, match="'push' is nan, first in step 2"):
        copied.means(Workers())


def test_sums_keep_no_graph() -> None:
    sums = LossSums(examples=1, step=1)
    sums.add({"push": torch.ones(1, requires_grad=True) * 2})
    assert not sums.terms["push"].requires_grad


def non_finite(workers: Workers) -> str:
    """The error for terms that break in different steps on each worker."""
    sums = LossSums(examples=8)
    for sums.step in (1, 2, 3, 4):
        push = math.inf if sums.step >= 4 - workers.rank else 1.0
        pull = math.nan if sums.step == 4 else 1.0
        sums.add({"push": torch.tensor([1.0, push]), "pull": torch.tensor([pull])})
    with pytest.raises(NonFiniteLoss) as caught:
        sums.means(workers)
    return str(caught.value)


def test_every_worker_names_the_first_step_that_is_not_finite() -> None:
    assert non_finite(Workers()) == "the loss term 'push' is inf, first in step 4"
    expected = "the loss term 'push' is inf, first in step 3"
    assert run_workers(2, non_finite) == [expected, expected]
