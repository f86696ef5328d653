"""Names that several packages share: metrics, trial labels, files of a search."""

from __future__ import annotations

DAMAGED = "faults/damaged_checkpoints"
"""Metric: number of damaged checkpoints that the trial skipped to resume from an older one."""

HALVINGS = "faults/micro_batch_halvings"
"""Metric: how often the micro-batches were halved because memory was short."""

PREEMPTED = "faults/preempted"
"""Metric: 1 for a checkpoint written because one of the trial's nodes is being preempted."""

ZERO_SHOT_MEAN = "zero_shot_mean"
"""Column of the mean zero-shot accuracy over the target languages."""

ZERO_SHOT_ACCURACY = f"accuracy/{ZERO_SHOT_MEAN}"
"""Metric, without its split: the mean accuracy over the target languages."""

ZERO_SHOT_MACRO_F1 = f"macro_f1/{ZERO_SHOT_MEAN}"
"""Metric, without its split: the mean macro-F1 over the target languages."""

BASELINE = "plain"
"""Label of the baseline trial, which fine-tunes on the classification loss alone."""
PAPER = "paper"
"""Label of the trial with the paper's values."""
BEST = "best"
"""Label of the best configuration when it is trained again."""
FIXED = "config"
"""Label of the single trial of a search without search parameters; it has the spec's values."""
SOUP = "soup"
"""Label of the average of the weights of several trials; others begin with it: `soup-greedy`."""

PRETRAINED = "pretrained"
"""Label of the encoder before fine-tuning."""

BEST_MODEL = "best-model"
"""Folder of the best trial's model, inside the search's folder."""
MODEL_DESCRIPTION = "task.json"
"""File in the model's folder with its task and the trial that trained it."""
VERDICT = "verdict.json"
"""File in a search's folder with its winner and the difference to plain fine-tuning."""

STATE = "state"
"""Folder of what resuming a search needs, inside the search's folder."""
CHECKPOINTS = "checkpoints"
"""Folder of the trials' checkpoints, inside a stage's folder."""
LEDGER_FILE = "trials.jsonl"
"""The ledger of a stage, inside the stage's folder."""
LEDGER = f"{STATE}/{LEDGER_FILE}"
"""The ledger of a search's trials, inside the search's folder."""

WARNING_TAG = "warning"
"""Tag of a search's run in MLflow: why its trials do not compare."""

OBJECTIVE = "objective"
"""Metric that searches maximise: `search.objective` of the weights that a trial has selected. They
are the best so far, or with `training.average_last` a mean, whose value can fall."""

BOTH = "_and_virtual"
"""Suffix of the source language's code for the mean over its dev texts and their views."""

VIRTUAL = "_virtual"
"""Suffix of the source language's code for synonym views of its dev set."""
