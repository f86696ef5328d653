"""Faults of a trial: those it goes on from, with what is said of each, and those that end it."""

from __future__ import annotations

import re

from xlt_ray.names import DAMAGED, HALVINGS, PREEMPTED

WARNINGS = {
    DAMAGED: "its last checkpoint was damaged; it went on from one before",
    HALVINGS: "out of memory: micro-batches are halved, with twice as many; the batch stays",
    PREEMPTED: "a node of its is taken away; it wrote a checkpoint and goes on elsewhere",
}


class NonFiniteLoss(RuntimeError):
    """A loss term became infinite or not a number."""


class OutOfMemory(RuntimeError):
    """A single example needs more memory than there is."""


def is_outcome(reason: str) -> bool:
    """Whether a failure is a result of the configuration: it would fail in the same way again.

    Args:
        reason: What is told of it, its last line beginning with the error's name.
    """
    return re.search(r"\b(NonFiniteLoss|OutOfMemory)\b", reason) is not None
