"""What a trained model answered on the test set, kept for comparisons item by item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np


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

    def save(self, path: Path) -> None:
        """Write a `.npz` file."""
        np.savez_compressed(
            path,
            predicted=self.predicted.astype(np.int16),
            labels=self.labels.astype(np.int16),
            language=self.language.astype(np.int16),
            languages=np.array(list(self.languages)),
        )

    @classmethod
    def load(cls, file: Path | IO[bytes]) -> Predictions:
        """Read what :meth:`save` wrote."""
        with np.load(file) as arrays:
            return cls(
                arrays["predicted"],
                arrays["labels"],
                arrays["language"],
                tuple(map(str, arrays["languages"])),
            )

    def correct(self) -> dict[str, np.ndarray]:
        """Whether each item was classified rightly, by language: bool (items,)."""
        right = self.predicted == self.labels
        return {code: right[self.language == i] for i, code in enumerate(self.languages)}
