"""Ray's private names that xlt-ray relies on; each was checked on Ray 2.60."""

from __future__ import annotations

from typing import Any

from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

_end_actor = RayActorManager._actor_task_failed


def apply_patches() -> None:
    """Change what Ray does with its private names; calling it again changes nothing."""
    RayActorManager._actor_task_failed = _end_actor_for_memory  # type: ignore[method-assign]


def _end_actor_for_memory(
    self: RayActorManager, tracked_actor_task: Any, exception: Exception
) -> None:
    """Take an actor that Ray's memory monitor ended for one that died: Tune does not know the
    monitor's error, and would end with all trials."""
    if isinstance(exception, OutOfMemoryError):
        exception = RayActorError(error_msg=str(exception))
    _end_actor(self, tracked_actor_task, exception)
