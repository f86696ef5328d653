"""Comparison of methods over seeds: accuracies, and differences with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xlt_ray.evaluation.intervals import (
    Accuracy,
    Correct,
    Difference,
    OtherTexts,
    accuracy,
    paired_difference,
)
from xlt_ray.names import ZERO_SHOT_MEAN

REFERENCES = ("plain", "plain-long", "rs-da")
"""Methods that the others are compared with."""


@dataclass(frozen=True)
class Comparison:
    """Methods, each fine-tuned with the same seeds and scored on the same test items.

    A column is a language's code, or :data:`ZERO_SHOT_MEAN`.
    """

    seeds: tuple[int, ...]
    """Of the runs."""
    source: str
    """Code of the source language, which is not part of the zero-shot mean."""
    languages: tuple[str, ...]
    """Codes, the source first."""
    methods: tuple[str, ...]
    """Names, in the order in which they are shown."""
    accuracy: Mapping[str, Mapping[str, Accuracy]]
    """Method to column to accuracy."""
    difference: Mapping[str, Mapping[str, Mapping[str, Difference]]]
    """Method to reference to column to the method's accuracy minus the reference's. The references
    are those of :data:`REFERENCES` that are among the methods; none is compared with itself."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The zero-shot mean, then the languages."""
        return (ZERO_SHOT_MEAN, *self.languages)

    @property
    def references(self) -> tuple[str, ...]:
        """The methods that the others are compared with."""
        return tuple(name for name in REFERENCES if name in self.methods and len(self.methods) > 1)

    def compared_with(self, reference: str) -> list[str]:
        """The methods that have differences to a reference: all but itself."""
        return [name for name in self.methods if name != reference]


def compare(
    correct: Mapping[str, Correct], seeds: Sequence[int], languages: Sequence[str], source: str
) -> Comparison:
    """Compare methods on the same test items and seeds.

    Args:
        correct: Method name to language code to bool (seeds, items); seeds and items are the
            same, in the same order, for every method.
        seeds: The runs' seeds, in that order.
        languages: Codes of the languages, the source among them.
        source: Code of the source language.

    Raises:
        OtherTexts: If a method lacks a language, or the arrays' shapes differ between methods or do
            not fit the seeds.
        ValueError: If the source is not among the languages, or there is no method or no target
            language.
    """
    if not correct:
        raise ValueError("no method to compare")
    if source not in languages:
        raise ValueError(f"the source language {source} is not among {', '.join(languages)}")
    targets = tuple(code for code in languages if code != source)
    if not targets:
        raise ValueError(f"no language other than the source language {source}")
    columns = {ZERO_SHOT_MEAN: targets} | {code: (code,) for code in (source, *targets)}
    first = next(iter(correct))
    for name, arrays in correct.items():
        for code in (source, *targets):
            if code not in arrays:
                raise OtherTexts(f"{name} has no predictions in {code}")
            shape, expected = arrays[code].shape, correct[first][code].shape
            if shape[:1] != (len(seeds),) or shape != expected:
                raise OtherTexts(
                    f"{name}, {code}: predictions of shape {shape}; it must be (seeds, items) "
                    f"with {len(seeds)} seeds, and the same for every method"
                )

    accuracies = {
        name: {column: accuracy(arrays, codes) for column, codes in columns.items()}
        for name, arrays in correct.items()
    }
    differences = {
        name: {
            reference: {
                column: paired_difference(arrays, correct[reference], codes)
                for column, codes in columns.items()
            }
            for reference in REFERENCES
            if reference in correct and reference != name
        }
        for name, arrays in correct.items()
    }
    return Comparison(
        tuple(seeds), source, (source, *targets), tuple(correct), accuracies, differences
    )
