"""Virtual views of words: a sentence with some of its words replaced by synonyms."""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections.abc import Iterator, Mapping
from typing import Literal

from xlt_ray.errors import brief
from xlt_ray.method.synonyms import WORD

MAX_REPLACEMENTS = 10_000


class SynonymView:
    """Replaces words of sentences by synonyms, reproducibly.

    Every draw is a function of (seed, epoch, row, column) and the position of the word, so neither
    the number of workers nor the order of the calls matters. Radii share their draws: a word that
    is replaced at one radius is replaced by the same synonym at every larger one.

    Args:
        synonyms: Lower-case word to its synonyms; words without any are never replaced.
        radius: Probability in [0, 1] of replacing a word that has synonyms, or "paper": a uniform
            choice among the word and its n synonyms, so probability n / (n + 1).
        seed: Any 64-bit integer.

    Raises:
        ValueError: If ``radius`` is neither "paper" nor in [0, 1].
    """

    def __init__(
        self,
        synonyms: Mapping[str, tuple[str, ...]],
        radius: float | Literal["paper"],
        seed: int,
    ) -> None:
        if radius != "paper" and (isinstance(radius, str) or not 0 <= radius <= 1):
            raise ValueError(f"radius must be 'paper' or in [0, 1], not {radius!r}")
        self.radius = radius
        self.seed = seed
        self._synonyms = {word: tuple(others) for word, others in synonyms.items() if others}

    def perturb(self, text: str, *, epoch: int, row: int, column: int = 0) -> str:
        """Draw one view of a sentence.

        The synonym takes the case of the word (lower, Capitalised, UPPER); a mixed-case word gets
        the synonym as the dictionary has it. Everything between the words stays.

        Args:
            text: The sentence.
            epoch: Number of the pass over the data; each pass has its own draws.
            row: Number of the example in the data set.
            column: Number of the sentence within its example (0 and 1 for a pair).

        Returns:
            The perturbed sentence.
        """
        swappable = list(self._swappable(text))
        draws = _uniforms(2 * len(swappable), self.seed, epoch, row, column)
        pieces: list[str] = []
        end = 0
        for (start, word, others), swap, choice in zip(
            swappable, draws[::2], draws[1::2], strict=True
        ):
            probability = len(others) / (len(others) + 1) if self.radius == "paper" else self.radius
            if swap < probability:
                pieces += text[end:start], _like(word, others[int(choice * len(others))])
                end = start + len(word)
        pieces.append(text[end:])
        return "".join(pieces)

    def alternatives(self, text: str) -> Iterator[tuple[tuple[int, int], str, tuple[str, ...]]]:
        """Yield the words of a text that can be replaced, from left to right.

        Args:
            text: Any text.

        Yields:
            (start, end) in characters, the word as written, and its possible replacements in the
            case of the word.
        """
        for start, word, others in self._swappable(text):
            yield (start, start + len(word)), word, tuple(_like(word, other) for other in others)

    def replacements(self, chunk: str) -> Iterator[str]:
        """Return every text that a chunk can become at any radius, itself included.

        Args:
            chunk: Text without whitespace, such as "(movie,".

        Returns:
            An iterator over the distinct results; the chunk itself comes first.

        Raises:
            ValueError: If there are more than 10,000 combinations.
        """
        literals = []
        choices = []
        end = 0
        for (start, stop), word, candidates in self.alternatives(chunk):
            literals.append(chunk[end:start])
            choices.append((word, *candidates))
            end = stop
        count = math.prod(map(len, choices))
        if count > MAX_REPLACEMENTS:
            shown = brief(chunk)
            raise ValueError(
                f"{shown!r} has {count:,} combinations of synonyms, over {MAX_REPLACEMENTS:,}"
            )
        results = (
            "".join(itertools.chain(*zip(literals, words, strict=True), [chunk[end:]]))
            for words in itertools.product(*choices)
        )
        return iter(dict.fromkeys(results))

    def _swappable(self, text: str) -> Iterator[tuple[int, str, tuple[str, ...]]]:
        """Yield (start, word as written, its synonyms in lower case)."""
        for match in WORD.finditer(text):
            word = match.group()
            others = self._synonyms.get(word.lower())
            if others:
                yield match.start(), word, others


def draw_seed(*key: int) -> int:
    """Mix 64-bit integers, such as seed, epoch and row, into the seed of a generator."""
    digest = hashlib.shake_128(struct.pack(f"<{len(key)}q", *key)).digest(8)
    return int.from_bytes(digest, "little") >> 1


def _uniforms(count: int, *key: int) -> list[float]:
    """Return numbers that are uniform on [0, 1) in steps of 2**-32, a function of the key."""
    # An extendable-output hash is a counter-based generator without the cost of setting one up.
    stream = hashlib.shake_128(struct.pack(f"<{len(key)}q", *key)).digest(4 * count)
    return [value / 2**32 for value in struct.unpack(f"<{count}I", stream)]


def _like(word: str, synonym: str) -> str:
    """Return the synonym in the case of the word that it replaces."""
    if word.islower():
        return synonym
    if len(word) > 1 and word.isupper():
        return synonym.upper()
    if word[0].isupper() and not any(character.isupper() for character in word[1:]):
        return synonym[0].upper() + synonym[1:]
    return synonym
