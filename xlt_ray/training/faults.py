"""Faults of a trial: those it goes on from, with what is said of each, and those that end it."""

from __future__ import annotations

import re

DAMAGED = "faults/damaged_checkpoints"
"""Newer checkpoints that were damaged, so that the trial went on from an older one."""

HALVINGS = "faults/micro_batch_halvings"
"""How often memory was short, and the micro-batches were halved."""

PREEMPTED = "faults/preempted"
"""1 where a checkpoint was written because a node of the trial is about to be taken away."""

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
