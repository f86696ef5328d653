"""Which failures of a trial are worth another attempt."""

from __future__ import annotations

from typing import Any

import pytest
import ray.exceptions
import torch
from ray.train import ControllerError, TrainingFailedError, WorkerGroupError

from xlt_ray.cluster import trial
from xlt_ray.config.loading import load_spec
from xlt_ray.config.spec import SearchSpec
from xlt_ray.training.faults import NonFiniteLoss, OutOfMemory, is_outcome

LOST = WorkerGroupError("gone", {0: ray.exceptions.ActorDiedError()})
KILLED = WorkerGroupError("killed", {0: ray.exceptions.OutOfMemoryError("the monitor's")})
DEVICE = WorkerGroupError(
    "short", {0: RuntimeError("a peer is gone"), 1: torch.OutOfMemoryError("CUDA out of memory.")}
)
CONTROLLER = ControllerError(
    RuntimeError("1 worker(s) were killed due to the node running low on memory.")
)
BROKEN = WorkerGroupError("nan", {0: NonFiniteLoss("the loss term 'push' is nan, first in step 3")})
ALONE = WorkerGroupError("one", {0: OutOfMemory("out of memory with one example at a time")})


class Attempts:
    """Stands in for a trial's attempts: they end as told, and the last one well."""

    def __init__(self) -> None:
        self.shortages: list[int] = []
        """The shortages of memory that each attempt was told of."""
        self._ends: list[Exception] = []

    def __call__(self, *ends: Exception) -> list[int]:
        self.shortages, self._ends = [], list(ends)
        spec = load_spec("demo", {"search.max_failures": 1})
        trial.run_trial({"label": "01"}, spec, "anywhere", 0.0)
        return self.shortages

    def attempt(
        self, config: dict[str, Any], spec: SearchSpec, storage: str, since: float, shortages: int
    ) -> None:
        self.shortages.append(shortages)
        if self._ends:
            raise self._ends.pop(0)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    scripted = Attempts()
    monkeypatch.setattr(trial, "_attempt", scripted.attempt)
    monkeypatch.setattr(trial, "_keep_only", lambda last: None)
    return scripted


def test_a_lost_worker_is_replaced_as_often_as_the_spec_says(attempts: Attempts) -> None:
    assert attempts(LOST) == [0, 0]
    with pytest.raises(WorkerGroupError, match="gone"):
        attempts(LOST, LOST)


def test_want_of_memory_is_no_failure_and_is_told_to_the_next_attempt(attempts: Attempts) -> None:
    assert attempts(KILLED, DEVICE, CONTROLLER, LOST, KILLED) == [0, 1, 2, 3, 3, 4]


@pytest.mark.parametrize(
    ("end", "error", "told"),
    [(BROKEN, NonFiniteLoss, "'push' is nan, first in step 3"), (ALONE, OutOfMemory, "one exam")],
)
def test_a_result_of_the_configuration_is_not_tried_again(
    attempts: Attempts, end: Exception, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told) as raised:
        attempts(end)
    assert attempts.shortages == [0]
    # Which the driver tells from the error's name.
    assert is_outcome(f"{type(raised.value).__name__}: {raised.value}")


def test_other_errors_of_training_count_as_failures(attempts: Attempts) -> None:
    assert attempts(ray.exceptions.ActorDiedError()) == [0, 0]
    other: TrainingFailedError = ControllerError(RuntimeError("no such placement group"))
    assert attempts(other) == [0, 0]
    with pytest.raises(WorkerGroupError, match="gone"):
        attempts(other, LOST)
