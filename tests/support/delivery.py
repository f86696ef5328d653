"""Deliver a search's records from its spool, as a resumed search does."""

from __future__ import annotations

import threading
from pathlib import Path

from xlt_ray.tracking.client import in_one_line
from xlt_ray.tracking.courier import Courier, Delivery, lock_spool


def deliver(spool: Path, uri: str) -> Delivery:
    """Deliver what a spool holds to an MLflow server; return what arrived and what did not."""
    lock = lock_spool(spool, limit_s=10)
    try:
        courier = Courier(spool, uri)
        try:
            courier.deliver(threading.Event())
        except Exception as error:
            return courier.summary(in_one_line(error, uri))
        return courier.summary(None)
    finally:
        lock.release()
