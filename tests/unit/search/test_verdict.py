"""The winner against plain fine-tuning: its interval, and claims only where the interval allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlt_ray.evaluation.intervals import Correct, paired_difference
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.search.confirmation import Choice, Confirmed
from xlt_ray.search.leaderboard import Entry, ranked
from xlt_ray.search.trials import Trial, TrialStatus
from xlt_ray.search.verdict import Verdict, search_verdict, verdict

TARGETS = ("de", "ru")


def entry(label: str, objective: float, zero_shot: float = 0.5, status: str = "finished") -> Entry:
    test = {"accuracy/zero_shot_mean": zero_shot} if status == "finished" else {}
    return Entry(Trial.labelled(label), TrialStatus(status), objective, test, {}, {})


def right(count: int, items: int = 200, seeds: int = 1) -> Correct:
    """The first `count` of the items right in each language, with each seed."""
    one = np.arange(items) < count
    return {code: np.stack([one] * seeds) for code in TARGETS}


ENTRIES = ranked([entry("plain", 0.8, 0.5), entry("01", 0.9, 0.75), entry("02", 0.7, 0.99)])


def found(correct: dict[str, Correct], entries: list[Entry] = ENTRIES) -> Verdict:
    result = verdict(entries, correct, TARGETS)
    assert result is not None
    return result


def test_a_clear_gain_is_called_better_with_its_interval() -> None:
    result = found({"01": right(150), "plain": right(100)})
    assert (result.winner, result.plain) == ("01", "plain")
    # 50 of 200 items differ, each in both languages: the standard error of the mean is
    # sqrt(0.25 * 0.75 / 200) = 0.0306, and 1.96 of them are 6.0 points.
    assert result.difference is not None
    assert result.difference.mean == pytest.approx(0.25)
    assert result.difference.low == pytest.approx(0.19, abs=0.01)
    assert result.difference.high == pytest.approx(0.31, abs=0.01)
    interval = f"{100 * result.difference.low:+.1f}, {100 * result.difference.high:+.1f}"
    assert result.sentence == (
        "Chosen on dev data: 01, test zero-shot mean 75.0 %, better than plain fine-tuning "
        f"(50.0 %): +25.0 points, 95 % interval [{interval}]. One seed: the interval covers test "
        "items only; other seeds may differ."
    )


def test_an_interval_with_zero_makes_no_claim() -> None:
    result = found({"01": right(102), "plain": right(100)})
    assert result.difference is not None and result.difference.low == 0
    assert "51.0 %, no clear difference to plain fine-tuning (50.0 %): +1.0 points" in (
        result.sentence
    )
    assert "better" not in result.sentence


def test_a_winner_on_dev_can_be_worse_on_test() -> None:
    assert "worse than plain fine-tuning (75.0 %): -25.0 points" in (
        found({"01": right(100), "plain": right(150)}).sentence
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 3))
def test_claims_are_those_of_the_interval(ours: int, theirs: int, seeds: int) -> None:
    correct = {"01": right(ours, 60, seeds), "plain": right(theirs, 60, seeds)}
    result = found(correct)
    expected = paired_difference(correct["01"], correct["plain"], TARGETS)
    assert result.difference == expected
    for claim in ("better", "worse", "no clear difference"):
        assert (claim in result.sentence) == (expected.verdict == claim)


def test_several_seeds_are_named() -> None:
    sentence = found({"01": right(150, seeds=3), "plain": right(100, seeds=3)}).sentence
    assert sentence.endswith("3 seeds: the interval covers test items and seeds.")
    assert "One seed" not in sentence


@pytest.mark.parametrize("known", ["", "01", "plain"])
def test_without_predictions_there_is_no_interval_and_no_claim(known: str) -> None:
    result = found({known: right(150)} if known else {})
    assert result.difference is None
    assert result.sentence == (
        "Chosen on dev data: 01, test zero-shot mean 75.0 %, +25.0 points against plain "
        "fine-tuning (50.0 %). There is no interval, because the two have no test predictions for "
        "the same texts. One seed; other seeds may differ."
    )


def test_plain_that_wins_is_what_one_gets() -> None:
    entries = ranked([entry("plain", 0.9, 0.76), entry("01", 0.8), entry("soup", 0.85)])
    result = found({}, entries)
    assert (result.winner, result.plain, result.difference) == ("plain", "plain", None)
    assert result.sentence == (
        "Chosen on dev data: plain fine-tuning, test zero-shot mean 76.0 %. No configuration "
        "scored higher on dev data: nothing that was searched paid on this task and data, and "
        "plain fine-tuning is the model that you get. One seed; other seeds may differ."
    )
    # An equal dev score is not a higher one.
    assert found({}, ranked([entry("01", 0.9), entry("plain", 0.9, 0.76)])) == result
    alone = ranked([entry("plain", 0.9, 0.76), entry("01", 0.95, status="failed")])
    assert "No other trial finished." in found({}, alone).sentence


def test_without_plain_fine_tuning_nothing_is_compared() -> None:
    result = found({}, ranked([entry("01", 0.9, 0.75), entry("plain", 0.9, status="failed")]))
    assert (result.winner, result.plain, result.difference) == ("01", None, None)
    assert "75.0 %. There is no finished run of plain fine-tuning" in result.sentence


def confirmed(label: str, objective: float, zero_shot: float) -> Confirmed:
    """A candidate that scored alike with three fresh seeds, other than in the search."""
    return Confirmed(label, 0, 0.5, np.full(3, objective), np.full(3, zero_shot))


@pytest.mark.parametrize(
    ("label", "baseline"), [("01", "finished"), ("01", "failed"), ("plain", "finished")]
)
def test_after_a_confirmation_the_score_is_that_of_the_fresh_seeds(
    label: str, baseline: str
) -> None:
    winner = confirmed(label, 0.9, 0.9)
    entries = ranked([entry("plain", 0.8, 0.5, baseline), entry("01", 0.7, 0.5)])
    result = verdict(entries, {}, TARGETS, Choice(winner, winner))
    assert result is not None and result.winner == label
    assert "zero-shot mean 90.0 %" in result.sentence and "50.0 %" not in result.sentence
    assert result.sentence.endswith("3 fresh seeds.") and "One seed" not in result.sentence


def test_plain_that_ties_with_the_best_is_what_one_gets() -> None:
    choice = Choice(confirmed("plain", 0.88, 0.9), confirmed("01", 0.9, 0.9))
    result = verdict(ENTRIES, {}, TARGETS, choice)
    assert result is not None and result.winner == "plain"
    assert "01 scored higher on dev data, but by less than the noise" in result.sentence
    assert "No configuration scored higher" not in result.sentence


def test_a_search_without_a_finished_trial_has_no_verdict() -> None:
    assert verdict(ranked([entry("01", 0.9, status="failed")]), {}, TARGETS) is None
    assert verdict([], {}, TARGETS) is None


def test_predictions_in_the_folder_are_read_and_the_file_keeps_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    labels = np.zeros(600, dtype=np.int64)
    language = np.repeat([0, 1, 2], 200)
    place = np.tile(np.arange(200), 3)
    for label, count in (("01", 150), ("plain", 100)):
        # The source language, all wrong, does not count.
        predicted = np.where((place < count) & (language > 0), 0, 1)
        Predictions(predicted, labels, language, ("en", *TARGETS)).save(
            tmp_path / "predictions" / f"{label}.npz"
        )
    result = search_verdict(ENTRIES, tmp_path, TARGETS)
    assert result == found({"01": right(150), "plain": right(100)})
    assert result is not None and Verdict.read(result.write(tmp_path)) == result
    # Plain fine-tuning was tested before the search was forced onto a shorter test set.
    shorter = place < 50
    Predictions(predicted[shorter], labels[shorter], language[shorter], ("en", *TARGETS)).save(
        tmp_path / "predictions" / "01.npz"
    )
    other = search_verdict(ENTRIES, tmp_path, TARGETS)
    assert other is not None and other.difference is None
    assert "no test predictions for the same texts" in other.sentence
    (tmp_path / "predictions" / "01.npz").unlink()
    without = search_verdict(ENTRIES, tmp_path, TARGETS)
    assert without is not None and without.difference is None
    assert Verdict.read(without.write(tmp_path)) == without
