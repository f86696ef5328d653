"""Ray's private names are still there and still do what the project relies on."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray._private.state import GlobalState
from ray.air.execution._internal import RayActorManager, TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.core.generated import autoscaler_pb2
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train.v2._internal import constants as train_constants
from ray.train.v2._internal import exceptions as train_exceptions
from ray.tune.execution import class_cache
from ray.tune.schedulers import ASHAScheduler

from xlt_ray.cluster import ray_patches

PROTOCOL: Any = autoscaler_pb2  # Its classes are made when it is imported.


@pytest.fixture
def unpatched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray as it is installed; restored after the test."""
    monkeypatch.setattr(RayActorManager, "_actor_task_failed", ray_patches._end_actor)
    monkeypatch.setattr(
        class_cache,
        "ENV_VARS_TO_PROPAGATE",
        class_cache.ENV_VARS_TO_PROPAGATE | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    )
    yield


def test_ray_is_the_version_that_was_checked() -> None:
    assert ray.__version__.startswith(f"{ray_patches.CHECKED_ON}.")


class NoCluster(RayActorManager):
    """Tune's manager of actors, without Ray's processes."""

    def __init__(self) -> None:
        self._failed_actor_ids = set()

    def _cleanup_actor(self, tracked_actor: TrackedActor) -> None:
        pass


def end_with(error: Exception) -> list[Exception]:
    """End an actor's task with an error; return what the actor's owner gets."""
    got: list[Exception] = []
    actor = TrackedActor(1, on_error=lambda _, cause: got.append(cause))
    NoCluster()._actor_task_failed(TrackedActorTask(actor), error)
    return got


@pytest.mark.usefixtures("unpatched")
def test_an_actor_that_the_memory_monitor_ended_is_one_that_died() -> None:
    original = inspect.signature(ray_patches._end_actor)
    assert list(original.parameters) == ["self", "tracked_actor_task", "exception"]
    # Without the patch, the error ends the search; once this passes, the patch can go.
    with pytest.raises(RuntimeError, match="unexpected exception"):
        end_with(OutOfMemoryError("killed"))
    for _ in range(2):
        ray_patches.survive_memory_monitor()
        [cause] = end_with(OutOfMemoryError("killed"))
        assert isinstance(cause, RayActorError) and "killed" in str(cause)
    died = RayActorError(error_msg="its node is gone")
    assert end_with(died) == [died]
    with pytest.raises(RuntimeError, match="unexpected exception"):
        end_with(ValueError("no"))


@pytest.mark.usefixtures("unpatched")
def test_trials_get_ray_s_settings_and_no_aws_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv(kept, "0.25")

    def environment() -> dict[str, str]:
        trainable = types.new_class("Trainable")
        actor: Any = class_cache._ActorClassCache().get(trainable)
        found: dict[str, str] = actor._default_options["runtime_env"]["env_vars"]
        return found

    assert environment()["AWS_SECRET_ACCESS_KEY"] == "secret"
    for _ in range(2):
        ray_patches.keep_aws_keys_private()
        assert not [name for name in environment() if name.startswith("AWS_")]
        assert environment()[kept] == "0.25"


class Configured(GlobalState):
    """The state of a cluster with a known configuration."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self._config = config

    def get_cluster_config(self) -> Any:
        return self._config


def test_nodes_that_the_autoscaler_may_add_count(monkeypatch: pytest.MonkeyPatch) -> None:
    config = PROTOCOL.ClusterConfig(
        node_group_configs=[
            PROTOCOL.NodeGroupConfig(resources={"CPU": 4}, min_count=1, max_count=1),
            PROTOCOL.NodeGroupConfig(resources={"CPU": 8, "GPU": 2}, max_count=3),
        ]
    )
    monkeypatch.setattr(ray_patches, "_global_state", Configured(config))
    assert ray_patches.autoscaler_limits() == {"CPU": 28, "GPU": 6}
    assert ray_patches.autoscaler_nodes() == [{"CPU": 4}, {"CPU": 8, "GPU": 2}]
    monkeypatch.setattr(ray_patches, "_global_state", Configured(None))
    assert ray_patches.autoscaler_limits() == {}
    assert ray_patches.autoscaler_nodes() == []


def test_asha_forgets_a_trial_and_keeps_its_score() -> None:
    asha = ASHAScheduler(
        time_attr="evaluations", metric="score", mode="max", grace_period=1, reduction_factor=2
    )
    controller: Any = None
    first, second = (SimpleNamespace(trial_id=name) for name in ("first", "second"))
    assert not ray_patches.asha_has(asha, "first")
    for trial in (first, second):
        asha.on_trial_add(controller, trial)  # type: ignore[arg-type]
    assert ray_patches.asha_has(asha, "first")
    assert asha.on_trial_result(controller, first, {"evaluations": 1, "score": 0.9}) == "CONTINUE"  # type: ignore[arg-type]
    ray_patches.asha_forget(asha, "first")
    ray_patches.asha_forget(asha, "first")
    assert not ray_patches.asha_has(asha, "first")
    assert asha.on_trial_result(controller, second, {"evaluations": 1, "score": 0.5}) == "STOP"  # type: ignore[arg-type]


def test_ray_train_keeps_its_list_of_checkpoints_in_this_file() -> None:
    assert train_constants.CHECKPOINT_MANAGER_SNAPSHOT_FILENAME == ray_patches.CHECKPOINT_LIST
    assert issubclass(getattr(train_exceptions, ray_patches.UNREADABLE_LIST), Exception)
