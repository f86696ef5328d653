"""Batch order, token budgets, padding and prefetching."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xlt_ray.data.batching import (
    BatchSchedule,
    micro_batches,
    pad,
    pad_inputs,
    prefetch,
    token_budget_batches,
)

lengths = st.lists(st.integers(1, 128), min_size=1, max_size=300).map(np.array)


@st.composite
def schedules(draw: st.DrawFn) -> BatchSchedule:
    return BatchSchedule(
        lengths=draw(lengths),
        batch_size=draw(st.integers(1, 40)),
        epochs=draw(st.integers(1, 4)),
        max_steps=draw(st.none() | st.integers(1, 60)),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@given(schedules())
def test_every_epoch_visits_each_example_once_in_full_batches(schedule: BatchSchedule) -> None:
    by_epoch: dict[int, list[np.ndarray]] = {}
    steps = []
    for step, epoch, batch in schedule.batches():
        steps.append(step)
        by_epoch.setdefault(epoch, []).append(batch)
    assert steps == list(range(schedule.steps))
    per_epoch = -(-len(schedule.lengths) // schedule.batch_size)
    assert schedule.steps_per_epoch == per_epoch
    whole = per_epoch * schedule.epochs
    assert schedule.steps == (
        whole if schedule.max_steps is None else min(whole, schedule.max_steps)
    )
    for epoch, batches in by_epoch.items():
        assert 0 <= epoch < schedule.epochs
        visits = Counter(np.concatenate(batches).tolist())
        assert set(visits.values()) == {1}
        if len(batches) < per_epoch:  # max_steps ended it
            assert epoch == max(by_epoch)
            assert all(len(batch) == schedule.batch_size for batch in batches)
            continue
        assert set(visits) == set(range(len(schedule.lengths)))
        assert all(len(batch) == schedule.batch_size for batch in batches[:-1])
        assert 1 <= len(batches[-1]) <= schedule.batch_size


@given(schedules(), st.data())
def test_going_on_from_a_step_gives_what_was_left(
    schedule: BatchSchedule, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, schedule.steps))
    whole = list(schedule.batches())
    rest = list(schedule.batches(first))
    assert len(rest) == schedule.steps - first
    for (step, epoch, batch), (again, epoch_again, same) in zip(whole[first:], rest, strict=True):
        assert (step, epoch, batch.tolist()) == (again, epoch_again, same.tolist())


def schedule_of(lengths: np.ndarray, seed: int = 0, epochs: int = 2) -> BatchSchedule:
    return BatchSchedule(lengths, batch_size=8, epochs=epochs, max_steps=None, seed=seed)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 200)

    def order(seed: int) -> list[list[int]]:
        return [batch.tolist() for _, _, batch in schedule_of(lengths, seed).batches()]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1)[:25] != order(1)[25:]


def test_batches_hold_like_lengths_but_stay_mixed() -> None:
    lengths = np.random.default_rng(0).integers(3, 100, 1000)
    batches = [batch for _, _, batch in schedule_of(lengths, epochs=1).batches()]
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    order = np.arange(1000)
    unsorted = sum(len(p) * lengths[p].max() for p in np.split(order, 125))
    assert padded < 1.1 * lengths.sum() < 1.5 * lengths.sum() < unsorted
    # Short ones first would teach lengths in turn.
    means = [lengths[batch].mean() for batch in batches]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.3


@given(schedules(), st.integers(1, 8))
def test_workers_shares_make_up_the_batch(schedule: BatchSchedule, size: int) -> None:
    """Each worker computes the schedule by itself and takes every size-th example of a batch."""
    by_worker = [list(schedule.batches()) for _ in range(size)]
    for step in zip(*by_worker, strict=True):
        batch = step[0][2]
        shares = [own[rank::size] for rank, (_, _, own) in enumerate(step)]
        assert sorted(np.concatenate(shares).tolist()) == sorted(batch.tolist())


@given(schedules(), st.integers(1, 12))
def test_evaluation_steps_rise_to_the_last_step(schedule: BatchSchedule, per_epoch: int) -> None:
    steps = schedule.evaluation_steps(per_epoch)
    assert steps == sorted(set(steps))
    assert steps[0] >= 1 and steps[-1] == schedule.steps
    epochs = max(1, schedule.steps / schedule.steps_per_epoch)
    assert abs(len(steps) - min(schedule.steps, per_epoch * epochs)) <= 1
    gaps = np.diff([0, *steps])
    assert gaps.max() - gaps.min() <= 1


def test_evaluation_steps_on_worked_examples() -> None:
    def steps(examples: int, epochs: int, max_steps: int | None, per_epoch: int) -> list[int]:
        schedule = BatchSchedule(np.ones(examples), 10, epochs, max_steps, 0)
        return schedule.evaluation_steps(per_epoch)

    assert steps(1000, 1, None, 4) == [25, 50, 75, 100]
    assert steps(1000, 2, None, 2) == [50, 100, 150, 200]
    assert steps(1000, 1, 40, 4) == [10, 20, 30, 40]
    assert steps(30, 1, None, 10) == [1, 2, 3]
    assert steps(5, 3, None, 1) == [1, 2, 3]


@given(lengths, st.integers(1, 600))
@example(np.array([128]), 1)
def test_token_budget_batches(lengths: np.ndarray, budget: int) -> None:
    batches = token_budget_batches(lengths, budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget
    visited = lengths[np.concatenate(batches)]
    assert (np.diff(visited) <= 0).all()
    # No batch could take the next one's first example too.
    for batch in batches[:-1]:
        assert (len(batch) + 1) * lengths[batch].max() > budget


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=20), min_size=1, max_size=6))
def test_pad_keeps_every_sequence_and_fills_up_with_the_value(rows: list[list[int]]) -> None:
    padded = pad(rows, 77)
    assert padded.dtype == np.int64 and len(padded) == len(rows)
    assert padded.shape[1] >= max(map(len, rows))
    for row, given_row in zip(padded.tolist(), rows, strict=True):
        assert row == given_row + [77] * (padded.shape[1] - len(given_row))


@given(lengths, st.integers(1, 500))
def test_micro_batches_are_few_even_and_of_like_lengths(tokens: np.ndarray, budget: int) -> None:
    examples = np.arange(len(tokens)) + 1000
    parts = micro_batches(examples, tokens, budget)
    assert sorted(np.concatenate(parts).tolist()) == examples.tolist()
    assert len(parts) <= -(-tokens.sum() // budget)
    sizes = [tokens[part - 1000] for part in parts]
    for size in sizes:
        assert len(size) > 0
        # An even share, and half an example at either end.
        assert size.sum() <= max(budget, tokens.mean()) + tokens.max()
    assert (np.diff(np.concatenate(sizes)) <= 0).all()


def test_micro_batches_on_hand_worked_numbers() -> None:
    tokens = np.array([10, 40, 20, 30])
    assert [part.tolist() for part in micro_batches(np.arange(4), tokens, 100)] == [[1, 3, 2, 0]]
    assert [part.tolist() for part in micro_batches(np.arange(4), tokens, 60)] == [[1], [3, 2, 0]]
    # Alone where the budget asks for it, whatever their tokens are.
    uneven = np.array([1, 10, 1])
    assert [part.tolist() for part in micro_batches(np.arange(3), uneven, 1)] == [[1], [0], [2]]
    even = np.full(4, 10)
    assert [part.tolist() for part in micro_batches(np.arange(4), even, 1)] == [[0], [1], [2], [3]]


def test_inputs_are_padded_each_with_its_own() -> None:
    inputs = {
        "input_ids": [[5, 6, 7], [8]],
        "token_type_ids": [[0, 1, 1], [1]],
        "words": [[0, 1, 1], [0]],
    }
    rows = {name: [np.array(row) for row in values] for name, values in inputs.items()}
    found = {name: array.tolist() for name, array in pad_inputs(rows, 9, width=4).items()}
    assert found == {
        "input_ids": [[5, 6, 7, 9], [8, 9, 9, 9]],
        "token_type_ids": [[0, 1, 1, 0], [1, 0, 0, 0]],
        "words": [[0, 1, 1, -1], [0, -1, -1, -1]],
        "attention_mask": [[1, 1, 1, 0], [1, 0, 0, 0]],
        "tokens": [0, 1, 2, 4],
    }


@given(st.lists(st.integers()), st.integers(0, 4))
def test_order_and_items_stay(items: list[int], depth: int) -> None:
    assert list(prefetch(iter(items), depth)) == items


@pytest.mark.parametrize("depth", [0, 2])
def test_error_comes_when_its_item_would(depth: int) -> None:
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("third")

    ahead = prefetch(failing(), depth)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(ValueError, match="third"):
        next(ahead)


def test_items_are_made_by_one_other_thread_and_only_so_far_ahead() -> None:
    made: list[tuple[int, int]] = []
    fourth = threading.Event()

    def items() -> Iterator[int]:
        for number in range(10):
            made.append((number, threading.get_ident()))
            if number == 3:
                fourth.set()
            yield number

    ahead = prefetch(items(), 3)
    assert next(ahead) == 0
    # One is taken, three are ahead; the fourth is made without being asked for.
    assert fourth.wait(timeout=30)
    ahead.close()  # type: ignore[attr-defined]  # waits for the thread
    assert [number for number, _ in made] == [0, 1, 2, 3]
    threads = {thread for _, thread in made}
    assert len(threads) == 1 and threading.get_ident() not in threads
