"""What a training writes to go on from, and what it leaves when it has ended.

A checkpoint tells the check sums of its files, so that one that was cut off or damaged, by a full
disk or a lost machine, is told from a whole one before it is loaded.
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

_PROGRESS, _CHECK_SUMS = "progress.json", "check_sums"


@dataclass
class Progress:
    """Where training stands; a checkpoint's `progress.json`."""

    step: int = 0
    """Optimiser steps done."""
    evaluations: int = 0
    """Dev evaluations done."""
    best_objective: float = -math.inf
    """Best objective of any evaluation so far."""
    best_step: int = 0
    """The step of that evaluation."""
    selected: dict[str, float] = field(default_factory=dict)
    """Dev metrics of that evaluation."""
    training_seconds: float = 0.0
    """Time in training steps, over all attempts."""
    evaluation_seconds: float = 0.0
    """Time in dev and test evaluation."""
    checkpoint_seconds: float = 0.0
    """Time for writing checkpoints and reporting, up to the last report before this."""
    micro_batch_tokens: int | None = None
    """Tokens of a micro-batch, where memory was short; None: the recipe's."""
    halvings: int = 0
    """How often memory was short."""
    reports: list[dict[str, float]] = field(default_factory=list)
    """Metrics of each dev evaluation: whoever was told of them may not have got them all."""


def save(
    folder: Path,
    classifier: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    best_weights: Path,
    progress: Progress,
) -> Path:
    """Write all that resuming needs; the best weights only where they are not the current.

    Args:
        folder: Where to make the checkpoint's folder.
        classifier: The model.
        optimizer: Its optimiser.
        best_weights: File of the best weights so far; there is none before an evaluation.
        progress: Where training stands.

    Returns:
        The checkpoint's folder, named after the step: the one before may still be on its way to
        the storage.
    """
    checkpoint = _new(folder / f"checkpoint-{progress.step}")
    save_model(classifier, str(checkpoint / "model.safetensors"))
    torch.save(optimizer.state_dict(), checkpoint / "optimizer.pt")
    if progress.best_step != progress.step and best_weights.exists():
        shutil.copyfile(best_weights, checkpoint / "best.safetensors")
    return _seal(checkpoint, progress)


def save_selected(
    folder: Path, classifier: PreTrainedModel, predictions: Predictions, progress: Progress
) -> Path:
    """Write what remains of a finished training; it can be resumed from, to the same end."""
    checkpoint = _new(folder / "selected")
    save_model(classifier, str(checkpoint / "model.safetensors"))
    predictions.save(checkpoint / "predictions.npz")
    return _seal(checkpoint, progress)


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint's files are there, and as they were written."""
    try:
        sums = json.loads((checkpoint / _PROGRESS).read_text(encoding="utf-8"))[_CHECK_SUMS]
        return all(_check_sum(checkpoint / name) == value for name, value in sums.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def load(
    checkpoint: Path,
    classifier: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    best_weights: Path,
) -> Progress:
    """Set a training back to a checkpoint.

    Args:
        checkpoint: A whole one.
        classifier: Gets the weights.
        optimizer: Gets its state; a finished training's checkpoint has none.
        best_weights: Where to put the best weights so far.

    Returns:
        Where training stood.
    """
    load_model(classifier, str(checkpoint / "model.safetensors"))
    state = checkpoint / "optimizer.pt"
    if state.exists():
        optimizer.load_state_dict(torch.load(state, weights_only=True))
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
    """Write the progress and the sums of all other files, last."""
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
