"""What a running search says of its trials."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray import cloudpickle
from ray.exceptions import RayActorError, RayTaskError

from xlt_ray.cluster.recording import failure_reason, recorded_failure
from xlt_ray.training.faults import FailureKind, NonFiniteLoss, OutOfMemory

OUT_OF_MEMORY = """\
Traceback (most recent call last):
ray.train.ControllerError: Training failed due to controller error:
2 worker(s) were killed due to the node running low on memory. Memory on the node was 22.47GB used
To adjust the kill threshold, set the environment variable `RAY_memory_usage_threshold`.
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Traceback:\n  File x\nValueError: no such layer\n\n", "ValueError: no such layer"),
        ("", ""),
    ],
)
def test_failure_is_told_by_the_last_line(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "error.txt"
    file.write_text(text)
    assert failure_reason(str(file)) == expected


def test_too_little_memory_is_told_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "error.txt"
    file.write_text(OUT_OF_MEMORY)
    reason = failure_reason(str(file))
    assert "ran out of memory" in reason and "RAY_" not in reason
    assert "--max-concurrent" in reason and "training.micro_batch_tokens" in reason


def of_a_task(cause: Exception) -> Exception:
    """A trial's error as Ray passes it to Tune."""
    error: Exception = RayTaskError("run_trial", "traceback", cause).as_instanceof_cause()
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (of_a_task(NonFiniteLoss("the loss term 'push' is nan")), FailureKind.OUTCOME),
        (of_a_task(OutOfMemory("one example")), FailureKind.OUTCOME),
        (of_a_task(ValueError("any")), FailureKind.INFRASTRUCTURE),
        (RayActorError(error_msg="its node is gone"), FailureKind.INFRASTRUCTURE),
    ],
)
def test_kind_comes_from_the_error_that_tune_pickled(
    tmp_path: Path, error: Exception, kind: FailureKind
) -> None:
    file = tmp_path / "error.pkl"
    file.write_bytes(cloudpickle.dumps(error))
    assert recorded_failure(str(file), "any reason") is kind


def test_kind_comes_from_the_reason_where_a_full_disk_left_no_error(tmp_path: Path) -> None:
    empty = tmp_path / "error.pkl"
    empty.touch()
    for path in (None, str(empty), str(tmp_path / "missing.pkl")):
        assert recorded_failure(path, "NonFiniteLoss: nan") is FailureKind.OUTCOME
        assert recorded_failure(path, "ActorDiedError: gone") is FailureKind.INFRASTRUCTURE
