"""Faults that a trial goes on from: the metrics that count them, and what is said of each."""

from __future__ import annotations

DAMAGED = "faults/damaged_checkpoints"
"""Newer checkpoints that were damaged, so that the trial went on from an older one."""

HALVINGS = "faults/micro_batch_halvings"
"""How often memory was short, and the micro-batches were halved."""

WARNINGS = {
    DAMAGED: "its last checkpoint was damaged; it went on from one before",
    HALVINGS: "out of memory: micro-batches are halved, with twice as many; the batch stays",
}
