"""The choice among candidates that are trained anew, on hand-worked numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.config.loading import load_spec
from xlt_ray.search.confirmation import (
    Confirmed,
    choose,
    confirmation_seeds,
    confirmation_trials,
    confirmed,
    confirmed_candidates,
)
from xlt_ray.search.leaderboard import Entry, ranked
from xlt_ray.search.trials import Trial, TrialStatus

TWO = load_spec(
    "demo",
    {
        "search.confirmation": {"top": 2, "seeds": 2},
        "training.seed": 7,
        "search.comparison_seeds": 1,
    },
)


def entry(label: str, objective: float, members: tuple[str, ...] = ()) -> Entry:
    values = {"method.name": "plain"} if label == "plain" else {"method.pull_weight": objective}
    trial = Trial.labelled(label, {} if members else values)
    test = {"accuracy/zero_shot_mean": objective - 0.1}
    return Entry(trial, TrialStatus.FINISHED, objective, test, {}, {}, members=members)


SEARCH = ranked(
    [
        entry("plain", 0.5),
        entry("01", 0.6),
        entry("02", 0.9),
        entry("03", 0.8),
        entry("soup", 0.85, ("02", "03", "01")),
        entry("soup-greedy", 0.7, ("02",)),
    ]
)


def test_candidates_are_plain_the_top_and_the_best_soup() -> None:
    found = [one.label for one in confirmed_candidates(SEARCH, TWO)]
    assert found == ["plain", "02", "03", "soup"]
    assert confirmed_candidates(ranked([entry("plain", 0.5)]), TWO) == []


def test_a_configuration_is_confirmed_once() -> None:
    first, twin, other = entry("01", 0.9), entry("02", 0.8), entry("03", 0.7)
    seeded = Trial.labelled("02", {**first.values, "training.seed": 9})
    entries = ranked([first, replace(twin, trial=seeded), other, entry("plain", 0.6)])
    assert [one.label for one in confirmed_candidates(entries, TWO)] == ["plain", "01", "03"]
    # Alone, without plain fine-tuning, there is nothing to choose from.
    assert confirmed_candidates(ranked([first, replace(twin, trial=seeded)]), TWO) == []


def test_every_member_runs_once_a_seed_that_nothing_used() -> None:
    seeds = confirmation_seeds(TWO)
    assert seeds == (10_008, 10_009)  # a comparison has 8 to 10,007 at most
    more = TWO.search.model_copy(update={"comparison_seeds": 5})
    assert confirmation_seeds(TWO.model_copy(update={"search": more})) == seeds
    trials = confirmation_trials(confirmed_candidates(SEARCH, TWO), SEARCH, seeds)
    expected = [f"{label}-seed{seed}" for seed in seeds for label in ("plain", "02", "03", "01")]
    assert [trial.label for trial in trials] == expected
    assert trials[1].values == {"method.pull_weight": 0.9, "training.seed": 10_008}


def candidate(label: str, complexity: int, objectives: list[float]) -> Confirmed:
    scores = np.array(objectives)
    return Confirmed(label, complexity, 0.9, scores, scores)


def test_a_clear_lead_wins() -> None:
    choice = choose([candidate("plain", 0, [0.5, 0.6]), candidate("02", 2, [0.7, 0.8])])
    assert choice.winner.label == "02" and not choice.tied


def test_a_tie_within_noise_goes_to_the_simpler() -> None:
    # Differences 0.2 and -0.1: mean 0.05, standard error 0.15.
    choice = choose([candidate("plain", 0, [0.5, 0.8]), candidate("02", 2, [0.7, 0.7])])
    assert choice.winner.label == "plain" and choice.best.label == "02" and choice.tied


def test_noise_is_that_of_the_pairs_not_of_the_seeds() -> None:
    # Seeds differ by 0.4, the pairs by 0.05 and 0.06: clear.
    choice = choose([candidate("plain", 0, [0.3, 0.7]), candidate("02", 2, [0.35, 0.76])])
    assert choice.winner.label == "02"


def test_equally_simple_candidates_go_by_the_mean() -> None:
    choice = choose([candidate("01", 2, [0.6, 0.7]), candidate("02", 2, [0.7, 0.6001])])
    assert choice.winner.label == "02" and not choice.tied


def test_with_one_seed_only_equals_tie() -> None:
    assert choose([candidate("plain", 0, [0.5]), candidate("02", 2, [0.5])]).winner.label == "plain"
    assert choose([candidate("plain", 0, [0.5]), candidate("02", 2, [0.51])]).winner.label == "02"


def test_a_simpler_candidate_below_a_still_simpler_one_is_not_chosen() -> None:
    # 01 ties with the soup, plain does not; but plain is above 01.
    soup = candidate("soup", 3, [0.60, 0.60, 0.60])
    single = candidate("01", 2, [0.70, 0.55, 0.40])
    plain = candidate("plain", 0, [0.56, 0.56, 0.56])
    assert choose([plain, single, soup]).winner.label == "soup"
    assert choose([single, soup]).winner.label == "01"


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5))
def test_the_winner_is_the_best_or_simpler(scores: list[list[float]]) -> None:
    candidates = [candidate(str(n), n % 4, values) for n, values in enumerate(scores)]
    choice = choose(candidates)
    assert choice.best.mean == max(one.mean for one in candidates)
    assert choice.winner.complexity <= choice.best.complexity
    assert choice.tied == (choice.winner.label != choice.best.label)


def test_only_seeds_that_every_candidate_finished_count() -> None:
    candidates = confirmed_candidates(SEARCH, TWO)

    def run(label: str, objective: float) -> Entry:
        return replace(entry("x", objective), trial=Trial.labelled(label))

    runs = [run(f"{one.label}-seed9", 0.5 + 0.1 * n) for n, one in enumerate(candidates)]
    runs += [run("plain-seed10", 0.2), run("02-seed10", 0.2), run("03-seed10", 0.2)]
    found, seeds = confirmed(candidates, runs, (9, 10))
    assert seeds == [9]
    assert [one.mean for one in found] == pytest.approx([0.5, 0.6, 0.7, 0.8])
    assert [one.searched for one in found] == [0.5, 0.9, 0.8, 0.85]
    # Without plain's first run, seed 9 lacks it and seed 10 lacks the soup.
    assert confirmed(candidates, runs[1:], (9, 10)) == ([], [])


def test_a_run_that_failed_after_its_test_scores_does_not_count() -> None:
    candidates = confirmed_candidates(SEARCH, TWO)
    runs = [
        replace(entry("x", 0.5), trial=Trial.labelled(f"{one.label}-seed{seed}"))
        for one in candidates
        for seed in (9, 10)
    ]
    runs[0] = replace(runs[0], status=TrialStatus.FAILED)
    assert confirmed(candidates, runs, (9, 10))[1] == [10]


def test_a_candidate_that_failed_with_every_seed_is_left_out() -> None:
    candidates = confirmed_candidates(SEARCH, TWO)
    runs = [
        replace(entry("x", objective), trial=Trial.labelled(f"{label}-seed{seed}"))
        for label, objective in (("plain", 0.5), ("02", 0.6))
        for seed in (9, 10)
    ]
    found, seeds = confirmed(candidates, runs, (9, 10))
    assert [one.label for one in found] == ["plain", "02"] and seeds == [9, 10]
    assert choose(found).winner.label == "02"
    # One alone has nothing to be compared with.
    assert confirmed(candidates, runs[:2], (9, 10)) == ([], [])
