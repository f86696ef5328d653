"""One trial: the function that Tune runs, which launches a Ray Train run of its workers.

:mod:`xlt_ray.cluster.tune` passes it to Tune.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xlt_ray.cluster.ray_patches import CHECKPOINT_LIST, UNREADABLE_LIST
from xlt_ray.cluster.worker import train_worker
from xlt_ray.config.spec import SearchSpec
from xlt_ray.search.trials import LABEL, Trial
from xlt_ray.storage import filesystem, path_in
from xlt_ray.training.faults import (
    FailureKind,
    NonFiniteLoss,
    OutOfMemory,
    failure_kind,
    with_wrapped,
)

if TYPE_CHECKING:
    from ray.train import Checkpoint

_MOST_SHORTAGES = 20
"""Memory shortages of a trial that halve its micro-batches; no batch is halved as often."""


def run_trial(config: dict[str, Any], spec: SearchSpec, storage: str, since: float) -> None:
    """Fine-tune one configuration; Tune calls it in an actor of the trial's own.

    Each attempt resumes from the last checkpoint of the one before. A preempted node and a memory
    shortage do not count as failures; the shortage halves the micro-batches. A shortage after many
    others does count: smaller micro-batches do not help where the model itself does not fit. A
    failure that the configuration causes, such as a loss that is not finite, is not tried again.

    Args:
        config: The trial's label and its values of the searched keys.
        spec: The search.
        storage: Folder or URI under which the trial keeps its checkpoints.
        since: When the search started, in seconds since 1970.

    Raises:
        NonFiniteLoss: If a loss term stops being finite.
        OutOfMemory: If memory does not hold one example at a time.
        TrainingFailedError: If the workers fail more often than the spec allows.
        RayActorError: If Ray Train's controller does.
    """
    from ray.exceptions import RayActorError
    from ray.train import TrainingFailedError

    failures = shortages = 0
    rebuilt = False
    while True:
        try:
            last = _attempt(config, spec, storage, since, shortages)
        except (TrainingFailedError, RayActorError) as error:
            kind = failure_kind(error)
            if kind is FailureKind.OUTCOME:
                raise _outcome(error) from None
            if kind is FailureKind.MEMORY and shortages < _MOST_SHORTAGES:
                shortages += 1
                continue
            if not rebuilt and _has_unreadable_list(error):
                _delete_checkpoint_list(storage, config)
                rebuilt = True
                continue
            failures += 1
            if failures > spec.search.max_failures:
                raise
        else:
            _delete_other_checkpoints(last)
            return


def _outcome(error: BaseException) -> BaseException:
    """Return the failure that the configuration caused, without the errors that wrap it."""
    cause = [part for part in with_wrapped(error) if isinstance(part, NonFiniteLoss | OutOfMemory)][
        -1
    ]
    # A plain copy: the original's type may be one that Ray derived from it.
    return (NonFiniteLoss if isinstance(cause, NonFiniteLoss) else OutOfMemory)(str(cause))


def _has_unreadable_list(error: Exception) -> bool:
    """Return whether Ray Train could not read its list of the trial's checkpoints."""
    # The controller dies of it while it starts, and Ray passes on such an error as text only.
    return UNREADABLE_LIST in f"{type(error).__name__}: {error}"


def _delete_checkpoint_list(storage: str, config: Mapping[str, Any]) -> None:
    """Delete Ray Train's list of a trial's checkpoints, which a full disk may leave empty.

    The checkpoints stay; a worker finds them without the list.
    """
    path = path_in(storage, f"{_folder(config)}/{CHECKPOINT_LIST}")
    filesystem(storage).delete_file(path)


def _folder(config: Mapping[str, Any]) -> str:
    """Return the name of a trial's folder in the storage."""
    return f"trial-{config[LABEL]}"


def _attempt(
    config: dict[str, Any], spec: SearchSpec, storage: str, since: float, shortages: int
) -> Checkpoint:
    """Train from the last checkpoint to the end; return the final checkpoint."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    # Ray Train polls for one report of each worker, by default every 2 seconds. Evaluations on
    # little data are shorter, and the end of a worker would be noticed that much later.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    resources = spec.resources
    per_worker: dict[str, float] = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        per_worker["GPU"] = resources.gpus_per_worker
    # Ray accepts a range, but its annotation lacks it.
    workers: Any = resources.workers_per_trial
    if resources.max_workers_per_trial is not None:
        workers = (workers, resources.max_workers_per_trial)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "spec": Trial.from_config(config).spec(spec).model_dump(mode="json"),
            "trial_started": time.time(),
            "search_started": since,
            "memory_shortages": shortages,
        },
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=per_worker,
        ),
        run_config=RunConfig(
            name=_folder(config),
            storage_path=storage,
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]
            # `run_trial` decides which failures are worth another attempt.
            failure_config=FailureConfig(max_failures=0),
            # One more than resuming needs, in case the last one is damaged.
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    result = trainer.fit()
    assert result.checkpoint is not None
    return result.checkpoint


def _delete_other_checkpoints(last: Checkpoint) -> None:
    """Delete a trial's other checkpoints, including those that an interruption left incomplete."""
    from pyarrow.fs import FileSelector, FileType

    storage, (folder, _, own) = last.filesystem, last.path.rpartition("/")
    assert storage is not None
    for found in storage.get_file_info(FileSelector(folder)):
        if found.type == FileType.Directory and found.base_name != own:
            storage.delete_dir(found.path)
