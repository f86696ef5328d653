"""Faults of a trial: the kinds of failure, and the warnings for faults that a trial survives.

Workers raise the errors, the cluster decides by :func:`failure_kind` whether to try again, and the
ledger records the kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import ClassVar

from xlt_ray.names import DAMAGED, HALVINGS, PREEMPTED

WARNINGS = {
    DAMAGED: "its last checkpoint was damaged; it resumed from an earlier one",
    HALVINGS: "out of memory: micro-batches are halved, with twice as many; the batch stays",
    PREEMPTED: "one of its nodes is being preempted; it wrote a checkpoint and resumes elsewhere",
}
"""What to print for each fault's metric."""


_WRAPPED = ("cause", "controller_failure", "health_check_failure")
"""Attributes in which errors of Ray and Ray Train hold the error that they wrap."""


class FailureKind(StrEnum):
    """Why a trial failed, which decides whether to try again; the ledger has the values."""

    OUTCOME = "outcome"
    """The configuration causes the failure: it would occur again."""
    MEMORY = "memory"
    """The device or the machine ran out of memory: smaller micro-batches may fit."""
    INFRASTRUCTURE = "infrastructure"
    """Anything else, such as a lost machine: another attempt may succeed."""


class NonFiniteLoss(RuntimeError):
    """A loss term became infinite or not a number."""

    kind: ClassVar[FailureKind] = FailureKind.OUTCOME


class OutOfMemory(RuntimeError):
    """A single example needs more memory than there is."""

    kind: ClassVar[FailureKind] = FailureKind.OUTCOME


class MemoryShortage(RuntimeError):
    """Attempts ended for lack of memory, however small their micro-batches.

    Other processes of the machine may have taken it, so the configuration is not to blame.
    """

    kind: ClassVar[FailureKind] = FailureKind.INFRASTRUCTURE


def failure_kind(error: BaseException) -> FailureKind:
    """Return the kind of a failure, from the error and the errors that it wraps.

    Args:
        error: Any error. Of the errors that it wraps (its causes, and the workers' errors in an
            error of Ray Train), an outcome counts before a memory shortage.
    """
    kinds = {_own_kind(part) for part in with_wrapped(error)}
    return next(kind for kind in FailureKind if kind in kinds)


def with_wrapped(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and then the errors that it wraps, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        wrapped = [part.__cause__, *(getattr(part, name, None) for name in _WRAPPED)]
        wrapped += getattr(part, "worker_failures", {}).values()
        waiting += [inner for inner in wrapped if isinstance(inner, BaseException)]


def recorded_kind(kind: str | None, reason: str) -> FailureKind:
    """Return the kind of a recorded failure.

    Args:
        kind: The recorded kind; None in a ledger of an older version, which recorded none.
        reason: The recorded reason, from which the kind is then read: an outcome's reason begins
            with the name of the error.
    """
    if kind is not None:
        return FailureKind(kind)
    outcome = re.search(r"\b(NonFiniteLoss|OutOfMemory)\b", reason) is not None
    return FailureKind.OUTCOME if outcome else FailureKind.INFRASTRUCTURE


def _own_kind(error: BaseException) -> FailureKind:
    kind = getattr(error, "kind", None)
    if isinstance(kind, FailureKind):
        return kind
    # By name: neither torch, whose error a GPU raises, nor Ray, whose error stands for a worker
    # that its memory monitor killed, is imported here.
    if any(base.__name__ == "OutOfMemoryError" for base in type(error).__mro__):
        return FailureKind.MEMORY
    # These are known by their text only: torch's CPU allocator raises a plain RuntimeError, and
    # Ray Train passes on the message of the memory monitor in an error of its own.
    if any(sign in str(error) for sign in ("can't allocate memory", "running low on memory")):
        return FailureKind.MEMORY
    return FailureKind.INFRASTRUCTURE
