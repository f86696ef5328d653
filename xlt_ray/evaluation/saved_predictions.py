"""Test predictions of a trained model, saved for comparisons item by item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from xlt_ray.evaluation.intervals import OtherTexts

if TYPE_CHECKING:
    from xlt_ray.data.evaluation_set import EvaluationSet


@dataclass(frozen=True)
class Predictions:
    """Predicted and gold classes of one split in every language."""

    predicted: np.ndarray
    """Class ids (texts,)."""
    labels: np.ndarray
    """Gold class ids (texts,)."""
    language: np.ndarray
    """Position in `languages` of each text's language (texts,)."""
    languages: Sequence[str]
    """Language codes."""
    probability: np.ndarray | None = None
    """Probability of each predicted class, in [0, 1] (texts,); None in a file of an older
    version."""

    @classmethod
    def of(cls, probabilities: np.ndarray, data: EvaluationSet) -> Predictions:
        """Return the predictions of class probabilities (texts, classes) on a split."""
        return cls(
            probabilities.argmax(1),
            data.labels,
            data.language,
            data.languages,
            probabilities.max(1),
        )

    def save(self, path: Path) -> None:
        """Write a `.npz` file."""
        arrays = {
            "predicted": self.predicted.astype(np.int16),
            "labels": self.labels.astype(np.int16),
            "language": self.language.astype(np.int16),
            "languages": np.array(list(self.languages)),
        }
        if self.probability is not None:
            # 1 - p: near 0, float16 resolves probabilities near 1.
            arrays["doubt"] = (1 - self.probability).astype(np.float16)
        np.savez_compressed(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, file: Path | IO[bytes]) -> Predictions:
        """Read what :meth:`save` wrote."""
        with np.load(file) as arrays:
            return cls(
                arrays["predicted"],
                arrays["labels"],
                arrays["language"],
                tuple(map(str, arrays["languages"])),
                1 - arrays["doubt"].astype(np.float32) if "doubt" in arrays else None,
            )

    def correct(self) -> dict[str, np.ndarray]:
        """Return whether each item was classified correctly, by language: bool (items,)."""
        right = self.predicted == self.labels
        return {code: right[self.language == i] for i, code in enumerate(self.languages)}


def correct_of(files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Return whether each item was classified correctly by several runs.

    Args:
        files: Saved predictions, one file a run; at least one.

    Returns:
        bool (runs, items) by language.

    Raises:
        OSError: If a file cannot be read.
        OtherTexts: If the runs differ in languages or numbers of items.
    """
    by_run = [Predictions.load(file).correct() for file in files]
    first = {code: len(items) for code, items in by_run[0].items()}
    for file, one in zip(files, by_run, strict=True):
        if (found := {code: len(items) for code, items in one.items()}) != first:
            raise OtherTexts(f"{file.stem} was tested on {found}, {files[0].stem} on {first}")
    return {code: np.stack([correct[code] for correct in by_run]) for code in by_run[0]}
