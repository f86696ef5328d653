"""Means and intervals against hand-worked numbers, scipy, naive loops and simulated truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xlt_ray.evaluation.intervals import (
    Accuracy,
    Correct,
    Difference,
    accuracy,
    paired_difference,
    rank_correlation,
)


def bools(*rows: str) -> np.ndarray:
    """One row a seed: `1` for right, `0` for wrong."""
    return np.array([[mark == "1" for mark in row] for row in rows])


def made_up(
    rng: np.random.Generator,
    seeds: int,
    items: dict[str, int],
    level: float = 0.0,
    by_seed: float = 0.0,
) -> dict[str, np.ndarray]:
    """Right where an item's ease (alike in every language), noise and level exceed zero."""
    ease = np.random.default_rng(0).normal(size=max(items.values()))
    shifts = by_seed * rng.normal(size=(seeds, 1))
    own = rng.normal(size=len(ease))
    return {
        code: ease[:count] + own[:count] + 0.5 * rng.normal(size=(seeds, count)) + level + shifts
        > 0
        for code, count in items.items()
    }


def naive_interval(
    method: Correct,
    other: Correct,
    languages: Sequence[str],
    parallel: bool,
    resamples: int,
) -> tuple[float, float]:
    """The two-way bootstrap as one would say it: draw, look up, average."""
    rng = np.random.default_rng(99)
    seeds = method[languages[0]].shape[0]
    found = []
    for _ in range(resamples):
        chosen = rng.integers(seeds, size=seeds)
        shared = rng.integers(method[languages[0]].shape[1], size=method[languages[0]].shape[1])
        by_language = []
        for code in languages:
            count = method[code].shape[1]
            drawn = shared if parallel else rng.integers(count, size=count)
            ours, theirs = (one[code][chosen][:, drawn].mean() for one in (method, other))
            by_language.append(ours - theirs)
        found.append(sum(by_language) / len(languages))
    low, high = np.percentile(found, [2.5, 97.5])
    return low, high


def deviation_of(difference: Difference) -> float:
    """The standard deviation of a normal distribution with this interval."""
    return (difference.high - difference.low) / (2 * 1.96)


def test_accuracy_on_a_worked_example() -> None:
    correct = {"de": bools("1100", "1110"), "ar": bools("10", "00"), "en": bools("1", "1")}
    # Seed by seed: (1/2 + 1/2) / 2 = 1/2 and (3/4 + 0) / 2 = 3/8.
    found = accuracy(correct, ["de", "ar"])
    assert found.mean == pytest.approx(7 / 16)
    assert found.deviation == pytest.approx((1 / 8) / math.sqrt(2))
    assert accuracy({"de": bools("1000")}, ["de"]) == Accuracy(0.25, None)


def test_difference_and_seed_interval_on_a_worked_example() -> None:
    method = {"de": bools("1111", "1110", "1100")}
    other = {"de": bools("1100", "1100", "1100")}
    found = paired_difference(method, other, ["de"])
    # Differences 1/2, 1/4 and 0: mean 1/4, deviation 1/4; t(0.975; 2) = 4.302653.
    assert found.mean == pytest.approx(0.25)
    assert found.seed_low == pytest.approx(0.25 - 4.302653 * 0.25 / math.sqrt(3), abs=1e-6)
    assert found.seed_high == pytest.approx(0.25 + 4.302653 * 0.25 / math.sqrt(3), abs=1e-6)
    assert found.low <= found.mean <= found.high


def test_one_seed_has_no_seed_interval() -> None:
    found = paired_difference({"de": bools("110")}, {"de": bools("011")}, ["de"], resamples=100)
    assert found.seed_low is None and found.seed_high is None
    assert (found.mean, found.verdict) == (0, "no clear difference")


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.02, "better"),
        (-0.02, -0.001, "worse"),
        (-0.01, 0.01, "no clear difference"),
        (0.0, 0.02, "no clear difference"),
        (-0.02, 0.0, "no clear difference"),
        (0.0, 0.0, "no clear difference"),
    ],
)
def test_verdict(low: float, high: float, verdict: str) -> None:
    assert Difference((low + high) / 2, low, high, None, None).verdict == verdict
    assert Difference((low + high) / 2, low, high, low, high).verdict == verdict


@pytest.mark.parametrize(("low", "high"), [(0.01, 0.02), (-0.02, -0.01)])
def test_verdict_asks_the_interval_over_seeds_too(low: float, high: float) -> None:
    assert Difference((low + high) / 2, low, high, -0.1, 0.1).verdict == "no clear difference"
    assert Difference((low + high) / 2, -0.1, 0.1, low, high).verdict == "no clear difference"


def test_one_seed_agrees_with_scipy_where_items_are_parallel() -> None:
    rng = np.random.default_rng(1)
    items = {"de": 400, "ar": 400, "sw": 400}
    method, other = made_up(rng, 1, items, level=0.1), made_up(rng, 1, items)
    found = paired_difference(method, other, list(items), resamples=30_000)
    ours, theirs = (np.mean([one[code][0] for code in items], axis=0) for one in (method, other))
    expected = stats.bootstrap(
        (ours, theirs),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        method="percentile",
        n_resamples=30_000,
        batch=1_000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    # The difference of two such percentiles has a standard error of 0.022 deviations.
    tolerance = 0.09 * deviation_of(found)
    assert found.low == pytest.approx(expected.low, abs=tolerance)
    assert found.high == pytest.approx(expected.high, abs=tolerance)


def test_one_seed_agrees_with_scipy_where_languages_have_items_of_their_own() -> None:
    rng = np.random.default_rng(3)
    items = {"de": 300, "ar": 200}
    method, other = made_up(rng, 1, items, level=0.1), made_up(rng, 1, items)
    found = paired_difference(method, other, list(items), resamples=30_000)
    expected = stats.bootstrap(
        [method[code][0].astype(float) - other[code][0] for code in items],
        lambda a, b, axis: (a.mean(axis) + b.mean(axis)) / 2,
        method="percentile",
        n_resamples=30_000,
        batch=1_000,
        rng=np.random.default_rng(4),
    ).confidence_interval
    tolerance = 0.09 * deviation_of(found)
    assert found.low == pytest.approx(expected.low, abs=tolerance)
    assert found.high == pytest.approx(expected.high, abs=tolerance)


@pytest.mark.parametrize(
    ("seeds", "items", "by_seed"),
    [
        (3, {"de": 120, "ar": 120}, 0.0),
        (4, {"de": 120, "ar": 120}, 0.5),
        (4, {"de": 120, "ar": 90}, 0.2),
        (3, {"de": 60}, 0.3),
    ],
)
def test_several_seeds_agree_with_a_naive_loop(
    seeds: int, items: dict[str, int], by_seed: float
) -> None:
    rng = np.random.default_rng(5)
    method, other = (made_up(rng, seeds, items, by_seed=by_seed) for _ in range(2))
    found = paired_difference(method, other, list(items), resamples=20_000)
    parallel = len(set(items.values())) == 1
    low, high = naive_interval(method, other, list(items), parallel, resamples=5_000)
    # Standard error of the difference: 0.042 deviations if the distribution is about normal.
    tolerance = 0.17 * deviation_of(found)
    assert found.low == pytest.approx(low, abs=tolerance)
    assert found.high == pytest.approx(high, abs=tolerance)


def test_parallel_items_are_no_independent_evidence() -> None:
    rng = np.random.default_rng(6)
    ours, theirs = rng.random((2, 1, 300)) < 0.5
    method, other = ({code: one for code in ("de", "ar", "sw", "th")} for one in (ours, theirs))
    one_language = paired_difference(method, other, ["de"])
    assert paired_difference(method, other, ["de", "ar", "sw", "th"]) == one_language
    # Without the last item the languages count as different texts, and four tell twice as much.
    method["th"], other["th"] = ours[:, :-1], theirs[:, :-1]
    own_items = paired_difference(method, other, ["de", "ar", "sw", "th"])
    assert deviation_of(own_items) == pytest.approx(deviation_of(one_language) / 2, rel=0.1)


@pytest.mark.parametrize(("seeds", "by_seed"), [(3, 0.0), (12, 0.0), (12, 0.3)])
def test_width_is_that_of_the_bootstraps_exact_variance(seeds: int, by_seed: float) -> None:
    rng = np.random.default_rng(7)
    items = 400
    method, other = (made_up(rng, seeds, {"de": items}, by_seed=by_seed) for _ in range(2))
    found = paired_difference(method, other, ["de"], resamples=40_000)
    # Multinomial counts of K draws from K have E[c_i c_j] = 1 - 1/K, and 1 more where i = j.
    values = method["de"].astype(float) - other["de"]
    k, n = 1 - 1 / seeds, 1 - 1 / items
    square = (
        k * n * values.sum() ** 2
        + k * (values.sum(0) ** 2).sum()
        + n * (values.sum(1) ** 2).sum()
        + (values**2).sum()
    ) / values.size**2
    assert deviation_of(found) == pytest.approx(math.sqrt(square - values.mean() ** 2), rel=0.04)


def test_noise_of_single_runs_on_single_items_counts_as_often_as_the_docstring_says() -> None:
    rng = np.random.default_rng(8)
    seeds, items = 3, 400
    widths = []
    for _ in range(60):
        method, other = ({"de": rng.random((seeds, items)) < 0.5} for _ in "ab")
        found = paired_difference(method, other, ["de"], resamples=2_000)
        widths.append(deviation_of(found) ** 2)
    # The difference of two coin tosses has variance 1/2.
    truth = 0.5 / (seeds * items)
    assert np.mean(widths) == pytest.approx((3 - 2 / seeds) * truth, rel=0.08)


arrays = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 12))


@given(arrays, st.booleans())
@settings(max_examples=50, deadline=None)
def test_swapping_the_methods_swaps_the_ends(shape: tuple[int, int, int], parallel: bool) -> None:
    state, seeds, items = shape
    rng = np.random.default_rng(state)
    counts = {"de": items, "ar": items if parallel else items + 3}
    method, other = (
        {code: rng.random((seeds, count)) < 0.6 for code, count in counts.items()} for _ in "ab"
    )
    found = paired_difference(method, other, ["de", "ar"], resamples=200)
    swapped = paired_difference(other, method, ["de", "ar"], resamples=200)
    ends = (found.mean, found.low, found.high, found.seed_low, found.seed_high)
    mirrored = (swapped.mean, swapped.high, swapped.low, swapped.seed_high, swapped.seed_low)
    for one, its_mirror in zip(ends, mirrored, strict=True):
        if one is None:
            assert its_mirror is None and seeds == 1
        else:
            assert its_mirror is not None and one == pytest.approx(-its_mirror, abs=1e-12)
    opposite = {"better": "worse", "worse": "better"}
    assert swapped.verdict == opposite.get(found.verdict, found.verdict)


@given(arrays)
@settings(max_examples=30, deadline=None)
def test_a_method_does_not_differ_from_itself(shape: tuple[int, int, int]) -> None:
    state, seeds, items = shape
    rng = np.random.default_rng(state)
    method = {code: rng.random((seeds, items + more)) < 0.6 for more, code in enumerate("ab")}
    found = paired_difference(method, method, ["a", "b"], resamples=50)
    ends = {found.mean, found.low, found.high, found.seed_low or 0, found.seed_high or 0}
    assert ends == {0} and found.verdict == "no clear difference"


def test_languages_that_cancel_are_exactly_no_difference() -> None:
    # In 10 seeds de is ahead in the first, ar in the next two, sw behind in these three: 0 in
    # every resample, though 0.1 + 0.2 - 0.3 is not 0 in floating point.
    ahead = {code: np.zeros((10, count), bool) for code, count in (("de", 2), ("ar", 3), ("sw", 4))}
    behind = {code: array.copy() for code, array in ahead.items()}
    ahead["de"][:1] = ahead["ar"][1:3] = behind["sw"][:3] = True
    found = paired_difference(ahead, behind, ["de", "ar", "sw"], resamples=500)
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert found.verdict == "no clear difference"


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_constant_shift_has_no_width(seeds: int) -> None:
    right, wrong = np.ones((seeds, 10), dtype=bool), np.zeros((seeds, 10), dtype=bool)
    found = paired_difference({"de": right, "ar": right}, {"de": wrong, "ar": wrong}, ["de", "ar"])
    assert (found.mean, found.low, found.high, found.verdict) == (1, 1, 1, "better")
    # Right in one language of two, in every run and item.
    found = paired_difference({"de": right, "ar": wrong}, {"de": wrong, "ar": wrong}, ["de", "ar"])
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)


@given(arrays)
@settings(max_examples=30, deadline=None)
def test_items_that_both_get_right_count_like_those_both_get_wrong(
    shape: tuple[int, int, int],
) -> None:
    state, seeds, items = shape
    rng = np.random.default_rng(state)
    method, other = ({"de": rng.random((seeds, items)) < 0.5} for _ in "ab")
    found = paired_difference(method, other, ["de"], resamples=100)
    both, neither = method["de"] & other["de"], ~(method["de"] | other["de"])
    more, less = ({"de": one["de"] | neither} for one in (method, other))
    assert paired_difference(more, less, ["de"], resamples=100) == found
    more, less = ({"de": one["de"] & ~both} for one in (method, other))
    assert paired_difference(more, less, ["de"], resamples=100) == found
    means = accuracy(method, ["de"]).mean - accuracy(other, ["de"]).mean
    assert found.mean == pytest.approx(means)


def test_result_is_the_same_each_time_and_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    items = {"de": 50, "ar": 40}
    method, other = made_up(rng, 3, items), made_up(rng, 3, items)
    found = paired_difference(method, other, list(items), resamples=500)
    monkeypatch.setattr("xlt_ray.evaluation.intervals._BLOCK", 64)
    assert paired_difference(method, other, list(items), resamples=500) == found


def coverage(seeds: int, items: int, by_seed: float, by_item: bool) -> tuple[float, float]:
    """How often the intervals hold the true difference, 0.2, in 400 simulated studies.

    The method is right 0.2 more often than the other: per seed more or less so, by a normal
    deviate times `by_seed`; in items alike in all runs (`by_item`) or drawn anew in each.
    """
    rng = np.random.default_rng(9)
    held = np.zeros(2)
    for _ in range(400):
        chance = 0.4 + 0.2 + by_seed * rng.normal(size=(seeds, 1))
        draws = rng.random((2, 1 if by_item else seeds, items))
        method = {"de": np.broadcast_to(draws[0], (seeds, items)) < chance}
        other = {"de": np.broadcast_to(draws[1], (seeds, items)) < 0.4}
        found = paired_difference(method, other, ["de"], resamples=400)
        assert found.seed_low is not None and found.seed_high is not None
        held += [found.low <= 0.2 <= found.high, found.seed_low <= 0.2 <= found.seed_high]
    bootstrap, t_interval = held / 400
    return bootstrap, t_interval


def test_coverage_where_items_decide() -> None:
    bootstrap, t_interval = coverage(seeds=3, items=200, by_seed=0.0, by_item=True)
    assert 0.91 <= bootstrap <= 0.98
    assert t_interval < 0.2  # It answers for these items only, and all seeds agree on them.


def test_coverage_where_many_seeds_decide() -> None:
    bootstrap, t_interval = coverage(seeds=8, items=300, by_seed=0.1, by_item=False)
    assert 0.86 <= bootstrap <= 0.98
    assert 0.92 <= t_interval <= 0.98


def test_coverage_where_few_seeds_decide_is_too_low_but_for_the_seed_interval() -> None:
    bootstrap, t_interval = coverage(seeds=3, items=1_000, by_seed=0.1, by_item=False)
    assert 0.55 <= bootstrap <= 0.88
    assert 0.92 <= t_interval <= 0.98


@pytest.mark.parametrize("runs", [3, 6, 12])
@pytest.mark.parametrize("decimals", [0, 9])
def test_rank_correlation_agrees_with_scipy(runs: int, decimals: int) -> None:
    rng = np.random.default_rng(runs)
    one = rng.normal(size=runs).round(decimals)  # Rounded to integers, values are tied.
    other = (one + rng.normal(size=runs)).round(decimals)
    expected = stats.permutation_test(
        (one,),
        lambda permuted: stats.spearmanr(permuted, other).statistic,
        permutation_type="pairings",
        n_resamples=2_000,
        rng=0,
    )
    correlation, p_value = rank_correlation(one.tolist(), other.tolist())
    assert correlation == pytest.approx(expected.statistic, abs=1e-12)
    assert p_value == expected.pvalue


@pytest.mark.parametrize("one", [[0.1, 0.2], [0.5, 0.5, 0.5]])
def test_too_few_or_equal_values_have_no_rank_correlation(one: list[float]) -> None:
    with pytest.raises(ValueError, match="needs 3 runs or more"):
        rank_correlation(one, [0.1, 0.2, 0.3][: len(one)])


def test_shapes_that_do_not_match() -> None:
    one, two = {"de": bools("110", "101")}, {"de": bools("110")}
    with pytest.raises(ValueError, match=r"de: predictions of shape \(2, 3\) and \(1, 3\)"):
        paired_difference(one, two, ["de"])
    with pytest.raises(ValueError, match=r"\(1, 3\) and \(1, 2\)"):
        paired_difference(two, {"de": bools("11")}, ["de"])
    with pytest.raises(ValueError, match="ar has 1 seeds, de 2"):
        accuracy(one | {"ar": bools("1")}, ["de", "ar"])
    with pytest.raises(ValueError, match="no predictions in ar, sw"):
        accuracy(one, ["de", "ar", "sw"])
    with pytest.raises(ValueError, match="no language"):
        accuracy(one, [])
    with pytest.raises(ValueError, match="0 resamples"):
        paired_difference(one, one, ["de"], resamples=0)


@pytest.mark.parametrize(
    "array", [np.ones(3, bool), np.ones((0, 3), bool), np.ones((2, 0), bool), np.ones((2, 3))]
)
def test_arrays_that_are_no_predictions(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"de: .* is needed"):
        accuracy({"de": array}, ["de"])
