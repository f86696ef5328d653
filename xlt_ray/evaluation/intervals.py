"""Accuracies and differences of methods over paired runs, with their intervals.

The runs of one seed share data order and initial head, and every run is scored on the same test
items, so two methods are compared seed by seed and item by item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Correct = Mapping[str, np.ndarray]
"""Language code to whether each prediction is right, bool (seeds, items). All methods have the
same seeds and the same items in the same order."""

Direction = Literal["better", "worse", "no clear difference"]

_BLOCK = 2**22
"""Item counts that are in memory at once; 8 bytes each, twice."""


class OtherTexts(ValueError):
    """Runs were tested on different texts, so they cannot be compared item by item."""


@dataclass(frozen=True)
class Accuracy:
    """A method's accuracy."""

    mean: float
    """Over seeds, in [0, 1]."""
    deviation: float | None
    """Sample standard deviation over seeds, >= 0; None with one seed."""


@dataclass(frozen=True)
class Difference:
    """A method's accuracy minus another's."""

    mean: float
    """Over seeds, in [-1, 1]."""
    low: float
    """Lower end of the 95 % bootstrap interval over test items and seeds."""
    high: float
    """Its upper end."""
    seed_low: float | None
    """Lower end of the 95 % t-interval over seeds, for these test items; None with one seed."""
    seed_high: float | None
    """Its upper end."""

    @property
    def verdict(self) -> Direction:
        """Return the side of zero on which both intervals lie, if both exclude it.

        The bootstrap alone would be too sure of a few seeds that differ much.
        """
        lows = [self.low, *([] if self.seed_low is None else [self.seed_low])]
        highs = [self.high, *([] if self.seed_high is None else [self.seed_high])]
        if min(lows) > 0:
            return "better"
        return "worse" if max(highs) < 0 else "no clear difference"


def points(difference: float) -> str:
    """Return a difference of accuracies in points, with its sign; zero is never negative."""
    return f"{100 * difference:+z.1f}"


def wilson_interval(right: int, texts: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy (Wilson, 1927).

    It also holds for few texts and for accuracies near 0 and 1.

    Args:
        right: Number of correct predictions.
        texts: Number of texts, >= 1.

    Returns:
        Lower and upper end, in [0, 1].
    """
    from scipy.stats import binomtest

    interval = binomtest(right, texts).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def accuracy(correct: Correct, languages: Sequence[str]) -> Accuracy:
    """Return a method's accuracy: the unweighted mean over languages, then over seeds.

    Args:
        correct: What the method got right.
        languages: Codes of the languages to average over.

    Raises:
        ValueError: If there is no language, a language has no predictions, or the languages
            differ in seeds.
    """
    arrays = _arrays(correct, languages)
    by_seed = np.mean([array.mean(1) for array in arrays], axis=0)
    return Accuracy(float(by_seed.mean()), float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Return Spearman's rank correlation and its two-sided permutation p-value.

    Args:
        one: Values (runs,), at least 3 and not all equal.
        other: Values of the same runs, likewise.

    Returns:
        Correlation in [-1, 1] and p-value in (0, 1].

    Raises:
        ValueError: If there are fewer than 3 runs, or one side is constant.
    """
    from scipy import stats

    if len(one) < 3 or len(set(one)) == 1 or len(set(other)) == 1:
        raise ValueError("a rank correlation needs 3 runs or more, and values that differ")

    # Spearman's correlation is Pearson's of the ranks, and a permutation has the same ranks.
    ranks, others = (stats.rankdata(values) for values in (one, other))
    ranks, others = ranks - ranks.mean(), others - others.mean()
    scale = np.sqrt((ranks @ ranks) * (others @ others))

    def correlation(permuted: np.ndarray, axis: int) -> np.ndarray:
        return (permuted * others).sum(axis) / scale

    tested = stats.permutation_test(
        (ranks,),
        correlation,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=2_000,
        rng=0,
    )
    return float(tested.statistic), float(tested.pvalue)


def accuracy_interval(correct: Correct, languages: Sequence[str]) -> tuple[float, float, float]:
    """Return the accuracy and its 95 % bootstrap interval over test items and seeds.

    Args:
        correct: What the method got right.
        languages: The languages whose mean it is.

    Returns:
        Mean, lower and upper end, in [0, 1].
    """
    # An accuracy is a difference to a method that gets nothing right.
    nothing = {code: np.zeros_like(correct[code]) for code in languages}
    found = paired_difference(correct, nothing, languages, resamples=2_000)
    return found.mean, found.low, found.high


def paired_difference(
    method: Correct,
    other: Correct,
    languages: Sequence[str],
    *,
    resamples: int = 10_000,
) -> Difference:
    """Estimate the difference of two methods' mean accuracy over languages, with its intervals.

    The bootstrap interval (percentiles 2.5 and 97.5) answers for other test items and other
    seeds. Each resample draws items with replacement and, independently, seeds with replacement,
    the same for both methods: the pigeonhole bootstrap (Owen, Annals of Applied Statistics 1(2),
    2007), which with one seed is the paired bootstrap over items. Where the languages have
    equally many items, item i of each is taken to be the translation of the same item and is
    drawn in all of them at once, because translations of one item are not independent evidence;
    otherwise every language has its own draw.

    The bootstrap has a limit: K seeds say little about the variation of seeds. Resampling
    them has on average (K - 1) / K of the variance that they add, and K values have no tails, so
    with K = 3 the interval is too narrow where seeds matter most. The variance that belongs to
    single runs on single items it counts about 3 - 2 / K times, so it is too wide where seeds do
    not matter. The seed interval, a t-interval over the K differences a seed, is exact for
    normal differences at any K >= 2, but answers for these test items only.

    Args:
        method: What the method got right.
        other: What the method it is compared with got right, for the same seeds and items.
        languages: Codes of the languages to average over, each counting alike.
        resamples: Bootstrap resamples, >= 1.

    Raises:
        OtherTexts: If a language lacks predictions, or the shapes of the two methods differ.
        ValueError: If there is no language, the languages differ in seeds, or there are no
            resamples.
    """
    if resamples < 1:
        raise ValueError(f"{resamples} resamples; at least 1 is needed")
    differences = []
    pairs = zip(_arrays(method, languages), _arrays(other, languages), strict=True)
    for code, (ours, theirs) in zip(languages, pairs, strict=True):
        if ours.shape != theirs.shape:
            raise OtherTexts(
                f"{code}: predictions of shape {ours.shape} and {theirs.shape}; "
                "both methods need the same seeds and items"
            )
        differences.append(ours.astype(np.int64) - theirs)

    by_seed = np.mean([difference.mean(1) for difference in differences], axis=0)
    mean, seeds = float(by_seed.mean()), len(by_seed)
    seed_low = seed_high = None
    if seeds > 1:
        from scipy.stats import t

        margin = float(t.ppf(0.975, seeds - 1) * by_seed.std(ddof=1) / np.sqrt(seeds))
        seed_low, seed_high = mean - margin, mean + margin

    if len({difference.shape for difference in differences}) == 1:
        differences = [np.sum(differences, axis=0)]
    rng = np.random.default_rng(0)
    seed_counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    resampled = np.zeros(resamples)
    for difference in differences:
        totals = _item_totals(difference, resamples, rng)
        resampled += (seed_counts * totals).sum(1) / difference.size
    # The fractions of languages that cancel must be 0, or rounding errors could decide a verdict.
    resampled = np.round(resampled / len(languages), 12)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Difference(mean, float(low), float(high), seed_low, seed_high)


def _item_totals(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Sum integer values (seeds, items) over items drawn with replacement: (resamples, seeds).

    Items with the same values of all seeds are interchangeable, so it is only drawn how many of
    each kind there are. Kinds are in order of appearance, which negated values have too: swapping
    two methods swaps the ends of their interval and changes nothing else.
    """
    kinds, first, counts = np.unique(values, axis=1, return_index=True, return_counts=True)
    order = np.argsort(first)
    weights = kinds[:, order].T.astype(float)
    shares = counts[order] / values.shape[1]
    block = max(1, _BLOCK // len(shares))
    totals = np.empty((resamples, len(values)))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.multinomial(values.shape[1], shares, size=size)
        totals[start : start + size] = drawn.astype(float) @ weights
    return totals


def _arrays(correct: Correct, languages: Sequence[str]) -> list[np.ndarray]:
    """Return the predictions in the languages' order, after checking their shapes."""
    if not languages:
        raise ValueError("no language to average over")
    if missing := [code for code in languages if code not in correct]:
        raise OtherTexts(f"no predictions in {', '.join(missing)}")
    arrays = [correct[code] for code in languages]
    for code, array in zip(languages, arrays, strict=True):
        if array.ndim != 2 or array.size == 0 or array.dtype != np.bool_:
            raise ValueError(
                f"{code}: {array.dtype} of shape {array.shape}; "
                "bool of shape (seeds, items) is needed, at least one of each"
            )
        if len(array) != len(arrays[0]):
            raise ValueError(f"{code} has {len(array)} seeds, {languages[0]} {len(arrays[0])}")
    return arrays
