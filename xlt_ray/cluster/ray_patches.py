"""All private names of Ray that the project uses, each in a function; checked on Ray 2.60.

`tests/unit/cluster/test_ray_patches.py` fails when a Ray version changes one of them.
"""

from __future__ import annotations

from typing import Any

from ray._private.state import state as _global_state
from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import class_cache
from ray.tune.schedulers import ASHAScheduler

CHECKED_ON = "2.60"
"""Version of Ray with which the tests of this module passed."""
CHECKPOINT_LIST = "checkpoint_manager_snapshot.json"
"""File of Ray Train in a trial's folder: the list of the trial's checkpoints."""
UNREADABLE_LIST = "CheckpointManagerInitializationError"
"""Name of Ray Train's error for a list that it cannot read."""

_end_actor = RayActorManager._actor_task_failed


def survive_memory_monitor() -> None:
    """Let Tune treat an actor that Ray's memory monitor ended as one that died.

    Tune does not know the monitor's error and would end the whole search. A second call changes
    nothing.
    """
    RayActorManager._actor_task_failed = _end_actor_for_memory  # type: ignore[method-assign]


def keep_aws_keys_private() -> None:
    """Let Tune not copy AWS keys to trials: Ray logs them on the way. Each worker has the keys of
    its machine. A second call changes nothing."""
    class_cache.ENV_VARS_TO_PROPAGATE = {
        name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")
    }


def autoscaler_limits() -> dict[str, int]:
    """Return the most that the cluster's autoscaler may provide, by resource; empty without an
    autoscaler."""
    return _global_state.get_max_resources_from_cluster_config() or {}


def autoscaler_nodes() -> list[dict[str, int]]:
    """Return the resources of a node of each type that the autoscaler may start; empty without an
    autoscaler."""
    config = _global_state.get_cluster_config()
    return [] if config is None else [dict(group.resources) for group in config.node_group_configs]


def asha_has(scheduler: ASHAScheduler, trial_id: str) -> bool:
    """Return whether ASHA assigned a bracket to a trial."""
    return trial_id in scheduler._trial_info


def asha_forget(scheduler: ASHAScheduler, trial_id: str) -> None:
    """Remove a trial from ASHA; its scores stay in the rungs."""
    scheduler._trial_info.pop(trial_id, None)


def _end_actor_for_memory(
    self: RayActorManager, tracked_actor_task: Any, exception: Exception
) -> None:
    if isinstance(exception, OutOfMemoryError):
        exception = RayActorError(error_msg=str(exception))
    _end_actor(self, tracked_actor_task, exception)
