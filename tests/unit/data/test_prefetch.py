"""Items made ahead are the items, in their order, and not more of them than asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.data.batching import prefetch


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
