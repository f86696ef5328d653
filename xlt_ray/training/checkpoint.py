"""Checkpoints of a training: to resume from, and the final one with the selected model.

A checkpoint holds the check sums of its files, so that :func:`is_whole` finds one that a full disk
or a lost machine damaged. The trainer writes and loads checkpoints; the worker checks them.
"""

from __future__ import annotations

import json
import math
import shutil
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from transformers import PreTrainedModel

from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.training.ema import WeightAverage

_PROGRESS, _CHECK_SUMS = "progress.json", "check_sums"


@dataclass
class Progress:
    """The state of a training apart from weights; a checkpoint's `progress.json`."""

    step: int = 0
    """Optimiser steps done."""
    evaluations: int = 0
    """Dev evaluations done."""
    best_objective: float = -math.inf
    """Dev objective of the selected weights so far."""
    best_step: int = 0
    """The step of the evaluation that selected them."""
    averaged: int = 0
    """Evaluations in the mean of weights that is selected; 0: no mean."""
    selected: dict[str, float] = field(default_factory=dict)
    """Dev metrics of that evaluation."""
    training_seconds: float = 0.0
    """Time of training steps, over all attempts."""
    evaluation_seconds: float = 0.0
    """Time of dev and test evaluations."""
    checkpoint_seconds: float = 0.0
    """Time of writing checkpoints and reporting, without the latest report."""
    micro_batch_tokens: int | None = None
    """Tokens of a micro-batch after a memory shortage; None: there was none."""
    halvings: int = 0
    """How often micro-batches were halved."""
    reports: list[dict[str, float]] = field(default_factory=list)
    """Metrics of each dev evaluation, to report again: a report may be lost with its process."""

    @property
    def selects_current(self) -> bool:
        """Whether the selected weights are those of the current step."""
        return self.best_step == self.step and self.averaged < 2


def save(
    folder: Path,
    classifier: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    best_weights: Path,
    progress: Progress,
    average: WeightAverage,
) -> Path:
    """Write a checkpoint to resume from, with the selected weights if there are any.

    Args:
        folder: The folder in which to create the checkpoint's folder.
        classifier: The model.
        optimizer: Its optimiser.
        best_weights: File of the selected weights so far; it is missing before the first
            evaluation.
        progress: The state of the training.
        average: The average of the weights.

    Returns:
        The checkpoint's folder. It is named after the step, because the previous checkpoint may
        still be uploading.
    """
    checkpoint = _new(folder / f"checkpoint-{progress.step}")
    save_model(classifier, str(checkpoint / "model.safetensors"))
    torch.save(optimizer.state_dict(), checkpoint / "optimizer.pt")
    average.save(checkpoint / "average.safetensors")
    if best_weights.exists() and (average.enabled or not progress.selects_current):
        shutil.copyfile(best_weights, checkpoint / "best.safetensors")
    return _seal(checkpoint, progress)


def save_selected(
    folder: Path, classifier: PreTrainedModel, predictions: Predictions, progress: Progress
) -> Path:
    """Write the final checkpoint: the selected model and its test predictions.

    Training that resumes from it ends at once, with the same result.

    Args:
        folder: The folder in which to create the checkpoint's folder, `selected`.
        classifier: The model with the selected weights.
        predictions: Its test predictions.
        progress: The state of the training.

    Returns:
        The checkpoint's folder.
    """
    checkpoint = _new(folder / "selected")
    save_model(classifier, str(checkpoint / "model.safetensors"))
    predictions.save(checkpoint / "predictions.npz")
    return _seal(checkpoint, progress)


def is_whole(checkpoint: Path) -> bool:
    """Return whether all files of a checkpoint exist and have their check sums."""
    try:
        sums = json.loads((checkpoint / _PROGRESS).read_text(encoding="utf-8"))[_CHECK_SUMS]
        return all(_check_sum(checkpoint / name) == value for name, value in sums.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def is_final(checkpoint: Path) -> bool:
    """Return whether a checkpoint is that of a finished training."""
    return not (checkpoint / "optimizer.pt").exists()


def load(
    checkpoint: Path,
    classifier: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    best_weights: Path,
    average: WeightAverage,
) -> Progress:
    """Load a checkpoint.

    Args:
        checkpoint: Folder of a whole checkpoint.
        classifier: Receives the weights.
        optimizer: Receives its state, which a final checkpoint lacks.
        best_weights: File to write with the best weights so far.
        average: Receives the average of the weights, if the checkpoint has one.

    Returns:
        The state of the training.
    """
    load_model(classifier, str(checkpoint / "model.safetensors"))
    if not is_final(checkpoint):
        # Not onto the GPU that wrote it: all workers of a node see that one.
        state = torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True)
        optimizer.load_state_dict(state)
    average.load(checkpoint / "average.safetensors")
    best = checkpoint / "best.safetensors"
    shutil.copyfile(best if best.exists() else checkpoint / "model.safetensors", best_weights)
    values = json.loads((checkpoint / _PROGRESS).read_text(encoding="utf-8"))
    del values[_CHECK_SUMS]
    return Progress(**values)


def _new(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _seal(checkpoint: Path, progress: Progress) -> Path:
    """Write the progress with the check sums of all other files, as the last file."""
    sums = {file.name: _check_sum(file) for file in sorted(checkpoint.iterdir())}
    values = asdict(progress) | {_CHECK_SUMS: sums}
    (checkpoint / _PROGRESS).write_text(json.dumps(values), encoding="utf-8")
    return checkpoint


def _check_sum(file: Path) -> int:
    total = 0
    with file.open("rb") as content:
        while block := content.read(2**22):
            total = zlib.crc32(block, total)
    return total
