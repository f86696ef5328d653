"""Names that several packages share: metrics, labels of trials, files of a search."""

from __future__ import annotations

DAMAGED = "faults/damaged_checkpoints"
"""Newer checkpoints that were damaged, so that the trial went on from an older one."""

HALVINGS = "faults/micro_batch_halvings"
"""How often memory was short, and the micro-batches were halved."""

PREEMPTED = "faults/preempted"
"""1 where a checkpoint was written because a node of the trial is about to be taken away."""

ZERO_SHOT_MEAN = "zero_shot_mean"
"""The column of the mean over the target languages."""

BASELINE = "plain"
"""Label of the trial that fine-tunes on the classification loss alone."""
PAPER = "paper"
"""Label of the trial with the paper's values."""
BEST = "best"
"""Label of the best configuration where it is run anew."""
FIXED = "config"
"""Label of the only trial of a search that searches nothing: the spec's own values."""

PRETRAINED = "pretrained"
"""Label of the encoder before fine-tuning."""

BEST_MODEL = "best-model"
"""Folder of the best trial's model, in the search's folder."""
MODEL_DESCRIPTION = "task.json"
"""File in that folder: what the model's texts are, and which trial it is of."""

OBJECTIVE = "objective"
"""The metric that searches maximise: a trial's best value so far of `search.objective`."""

VIRTUAL = "_virtual"
"""What follows the source language's code for synonym views of its dev set."""
