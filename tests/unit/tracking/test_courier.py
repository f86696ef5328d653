"""The courier's spool: its lock, and what is pending; `test_tracking.py` delivers to MLflow."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.support.delivery import deliver
from xlt_ray.errors import UserError
from xlt_ray.journal import Journal
from xlt_ray.tracking.courier import Courier, lock_spool

AWAY = "http://127.0.0.1:9"
"""A server that refuses connections."""


def spool_of(folder: Path, records: int, *receipts: dict[str, object]) -> Path:
    """Write a spool with some records and receipts."""
    for step in range(records):
        Journal(folder / "journal.jsonl").append(
            {"kind": "metrics", "trial": None, "metrics": {"a": 1.0}, "step": step, "time_ms": 0}
        )
    for receipt in receipts:
        Journal(folder / "delivered.jsonl").append(receipt)
    return folder


def test_a_spool_has_one_user_at_a_time(tmp_path: Path) -> None:
    lock = lock_spool(tmp_path)
    with pytest.raises(UserError, match="is using this spool"):
        lock_spool(tmp_path)
    lock.release()
    lock_spool(tmp_path).release()


def test_receipts_tell_what_is_pending(tmp_path: Path) -> None:
    receipts = [{"trial": None, "run_id": "r1"}, {"through": 2}, {"postponed": 1}, {"through": 3}]
    courier = Courier(spool_of(tmp_path, 5, *receipts), AWAY)
    # Two records after the third, and the second, whose artifact was postponed.
    assert courier.pending() == 3
    assert courier.run_id(None) == "r1" and courier.run_id("01") is None


def test_a_torn_receipt_and_a_shorter_journal_are_survived(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, 2, {"through": 4})
    with (spool / "delivered.jsonl").open("ab") as file:
        file.write(b'{"through": 9')
    courier = Courier(spool, AWAY)
    assert courier.pending() == 0
    courier.deliver(threading.Event())
    assert courier.summary(None).delivered == 0


def test_a_server_that_is_away_is_the_problem(tmp_path: Path) -> None:
    # The run was started before, so that the first request sends metrics.
    spool = spool_of(tmp_path, 1, {"trial": None, "run_id": "r1"})
    delivery = deliver(spool, "http://me:pw@127.0.0.1:9")
    assert (delivery.delivered, delivery.pending) == (0, 1)
    assert delivery.problem == "no MLflow server answers at http://***@127.0.0.1:9"
