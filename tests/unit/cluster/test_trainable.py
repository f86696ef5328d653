"""Which failures of a trial are worth another attempt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import ray.exceptions
import torch
from ray.train import ControllerError, WorkerGroupError

from xlt_ray.cluster import trainable
from xlt_ray.cluster.ray_patches import CHECKPOINT_LIST, UNREADABLE_LIST
from xlt_ray.config.loading import load_spec
from xlt_ray.config.spec import SearchSpec
from xlt_ray.training.faults import FailureKind, NonFiniteLoss, OutOfMemory, failure_kind

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
    """Replaces a trial's attempts: each ends with the next error, the last one without."""

    def __init__(self) -> None:
        self.shortages: list[int] = []
        """The number of memory shortages that each attempt got."""
        self._ends: list[Exception] = []

    def __call__(self, *ends: Exception, storage: str = "anywhere") -> list[int]:
        self.shortages, self._ends = [], list(ends)
        spec = load_spec("demo", {"search.max_failures": 1})
        trainable.run_trial({"label": "01"}, spec, storage, 0.0)
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
    monkeypatch.setattr(trainable, "_attempt", scripted.attempt)
    monkeypatch.setattr(trainable, "_delete_other_checkpoints", lambda last: None)
    return scripted


def test_a_lost_worker_is_replaced_as_often_as_the_spec_says(attempts: Attempts) -> None:
    assert attempts(LOST) == [0, 0]
    with pytest.raises(WorkerGroupError, match="gone"):
        attempts(LOST, LOST)


def test_memory_shortages_are_no_failures_and_the_next_attempt_gets_their_number(
    attempts: Attempts,
) -> None:
    assert attempts(KILLED, DEVICE, CONTROLLER, LOST, KILLED) == [0, 1, 2, 3, 3, 4]


def test_a_model_that_never_fits_ends_its_trial(attempts: Attempts) -> None:
    with pytest.raises(WorkerGroupError, match="short"):
        attempts(*[DEVICE] * 1000)
    # After 20 shortages, the next two count as failures, of which the spec allows one.
    assert attempts.shortages == [*range(21), 20]


@pytest.mark.parametrize(
    ("end", "error", "message"),
    [(BROKEN, NonFiniteLoss, "'push' is nan, first in step 3"), (ALONE, OutOfMemory, "one exam")],
)
def test_a_failure_that_the_configuration_causes_is_not_tried_again(
    attempts: Attempts, end: Exception, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        attempts(end)
    assert attempts.shortages == [0]
    assert failure_kind(raised.value) is FailureKind.OUTCOME


def test_an_unreadable_list_of_checkpoints_is_deleted_once(
    attempts: Attempts, tmp_path: Path
) -> None:
    """Ray passes on the controller's error as text."""
    file = tmp_path / "trial-01" / CHECKPOINT_LIST
    file.parent.mkdir()
    file.touch()
    unreadable = ray.exceptions.ActorDiedError()
    unreadable.error_msg = f"The actor died in its creation task: {UNREADABLE_LIST}"
    assert attempts(unreadable, storage=str(tmp_path)) == [0, 0]
    assert not file.exists()
    # Found unreadable again, it counts as a failure, of which the spec allows one.
    with pytest.raises(ray.exceptions.ActorDiedError):
        file.touch()
        attempts(unreadable, unreadable, unreadable, storage=str(tmp_path))
    assert attempts.shortages == [0, 0, 0]


def as_ray_raises(error: Exception) -> ray.exceptions.RayTaskError:
    """The error of an actor's method, as Tune gets it."""
    task_error = ray.exceptions.RayTaskError("train", f"Traceback\n{error!r}", error)
    derived = task_error.as_instanceof_cause()
    assert isinstance(derived, ray.exceptions.RayTaskError)
    return derived


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (as_ray_raises(NonFiniteLoss("'push' is nan")), FailureKind.OUTCOME),
        (as_ray_raises(OutOfMemory("one example")), FailureKind.OUTCOME),
        (as_ray_raises(BROKEN), FailureKind.OUTCOME),
        (as_ray_raises(LOST), FailureKind.INFRASTRUCTURE),
        # A message that only quotes an outcome is none.
        (as_ray_raises(ValueError("no NonFiniteLoss here")), FailureKind.INFRASTRUCTURE),
        (ray.exceptions.ActorDiedError(), FailureKind.INFRASTRUCTURE),
    ],
)
def test_an_error_keeps_its_kind_on_its_way_to_the_driver(
    error: Exception, kind: FailureKind
) -> None:
    assert failure_kind(error) is kind
    # As Tune keeps it in a file.
    assert failure_kind(cloudpickle.loads(cloudpickle.dumps(error))) is kind
