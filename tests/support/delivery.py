"""Deliver a search's records from its spool, as a resumed search does."""

from __future__ import annotations

import threading
from pathlib import Path

from filelock import FileLock

from tests.support.waiting import LIMIT_S
from xlt_ray.tracking.client import in_one_line
from xlt_ray.tracking.courier import Courier, Delivery


def deliver(spool: Path, uri: str) -> Delivery:
    """Deliver what a spool holds to an MLflow server; return what arrived and what did not."""
    # A recorder whose `finish` did not wait long enough frees the spool a moment later.
    with FileLock(spool / "lock", timeout=LIMIT_S):
        courier = Courier(spool, uri)
        try:
            courier.deliver(threading.Event())
        except Exception as error:
            return courier.summary(in_one_line(error, uri))
        return courier.summary(None)
