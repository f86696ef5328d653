"""Kinds of failure, from errors and from ledgers that recorded none."""

from __future__ import annotations

import pickle

import pytest
import torch

from xlt_ray.training.faults import (
    FailureKind,
    MemoryShortage,
    NonFiniteLoss,
    OutOfMemory,
    failure_kind,
    recorded_kind,
    with_wrapped,
)


class Wrapping(Exception):
    """Wraps errors as Ray's errors do."""

    def __init__(self, **wrapped: object) -> None:
        super().__init__("outer")
        self.__dict__.update(wrapped)


def raised_from(cause: Exception) -> Exception:
    error = ValueError("outer")
    error.__cause__ = cause
    return error


class CudaOutOfMemory(torch.OutOfMemoryError):
    pass


OUTCOME, MEMORY, INFRASTRUCTURE = FailureKind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NonFiniteLoss("nan"), OUTCOME),
        (OutOfMemory("one example"), OUTCOME),
        (Wrapping(cause=MemoryShortage("one example")), INFRASTRUCTURE),
        (pickle.loads(pickle.dumps(NonFiniteLoss("nan"))), OUTCOME),
        (raised_from(NonFiniteLoss("nan")), OUTCOME),
        (Wrapping(cause=OutOfMemory("one example")), OUTCOME),
        (Wrapping(controller_failure=Wrapping(cause=NonFiniteLoss("nan"))), OUTCOME),
        (Wrapping(worker_failures={0: torch.OutOfMemoryError(), 1: NonFiniteLoss("nan")}), OUTCOME),
        (torch.OutOfMemoryError("CUDA out of memory."), MEMORY),
        (CudaOutOfMemory("derived"), MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), MEMORY),
        (RuntimeError("killed due to the node running low on memory."), MEMORY),
        (Wrapping(worker_failures={0: ValueError(), 3: torch.OutOfMemoryError()}), MEMORY),
        (Wrapping(health_check_failure=torch.OutOfMemoryError()), MEMORY),
        (ValueError("a message about NonFiniteLoss and OutOfMemory"), INFRASTRUCTURE),
        (Wrapping(kind="outcome", cause="OutOfMemory"), INFRASTRUCTURE),
        (KeyboardInterrupt(), INFRASTRUCTURE),
    ],
)
def test_kind_follows_from_the_error_and_what_it_wraps(
    error: BaseException, kind: FailureKind
) -> None:
    assert failure_kind(error) is kind


def test_errors_that_wrap_each_other_are_visited_once() -> None:
    one, other = Wrapping(), Wrapping()
    one.__dict__["cause"], other.__dict__["cause"] = other, one
    assert list(with_wrapped(one)) == [one, other]
    assert failure_kind(one) is INFRASTRUCTURE


@pytest.mark.parametrize("kind", FailureKind)
def test_a_recorded_kind_counts_whatever_the_reason_says(kind: FailureKind) -> None:
    for reason in ("NonFiniteLoss: nan", "ValueError: x", ""):
        assert recorded_kind(kind.value, reason) is kind


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("NonFiniteLoss: the loss term 'push' is nan, first in step 3", OUTCOME),
        ("xlt_ray.training.faults.OutOfMemory: out of memory in step 1", OUTCOME),
        ("torch.OutOfMemoryError: CUDA out of memory.", INFRASTRUCTURE),
        ("ValueError: no such layer", INFRASTRUCTURE),
        ("", INFRASTRUCTURE),
    ],
)
def test_without_a_recorded_kind_the_reason_names_the_error(reason: str, kind: FailureKind) -> None:
    assert recorded_kind(None, reason) is kind


def test_values_are_those_of_the_ledger() -> None:
    assert [kind.value for kind in FailureKind] == ["outcome", "memory", "infrastructure"]
