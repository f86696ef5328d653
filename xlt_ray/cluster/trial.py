"""One trial: a Tune function trainable that launches a Ray Train run of its workers."""

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
from xlt_ray.training.faults import NonFiniteLoss, OutOfMemory

if TYPE_CHECKING:
    from ray.train import Checkpoint


def run_trial(config: dict[str, Any], spec: SearchSpec, storage: str, since: float) -> None:
    """Fine-tune one configuration; called by Tune in an actor of the trial's own.

    Each attempt goes on from the last checkpoint of the one before. A node that is taken away with
    a warning counts as no failure; want of memory halves the micro-batches and counts as none; a
    result of the configuration, such as a loss that is not finite, is not tried again.

    Args:
        config: The trial's label and its values of the searched keys.
        spec: The search.
        storage: Folder or URI under which the trial keeps its checkpoints.
        since: When the search started, in seconds since 1970.

    Raises:
        NonFiniteLoss: If the loss broke.
        OutOfMemory: If memory is too short for one example at a time.
        TrainingFailedError: If the workers failed more often than the spec allows.
        RayActorError: If what watches over them did.
    """
    from ray.exceptions import RayActorError
    from ray.train import TrainingFailedError

    failures = shortages = 0
    rebuilt = False
    while True:
        try:
            last = _attempt(config, spec, storage, since, shortages)
        except (TrainingFailedError, RayActorError) as error:
            causes = list(getattr(error, "worker_failures", {}).values())
            for cause in causes:
                if isinstance(cause, NonFiniteLoss | OutOfMemory):
                    raise type(cause)(str(cause)) from None
            if any(map(is_memory_shortage, [error, *causes])):
                shortages += 1
                continue
            if not rebuilt and UNREADABLE_LIST in _told(error):
                _forget_records(storage, config)
                rebuilt = True
                continue
            failures += 1
            if failures > spec.search.max_failures:
                raise
        else:
            _keep_only(last)
            return


def is_memory_shortage(error: Exception) -> bool:
    """Whether training failed for want of memory: the device's, or the machine's, whose shortage
    Ray's monitor ends by killing workers."""
    # torch, and with it its error, is not imported here.
    signs = ("OutOfMemoryError", "running low on memory", "can't allocate memory")
    return any(sign in _told(error) for sign in signs)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _forget_records(storage: str, config: Mapping[str, Any]) -> None:
    """Delete Ray Train's list of a trial's checkpoints, which a full disk may have left empty; the
    checkpoints stay, and a worker finds them without it."""
    path = path_in(storage, f"{_folder(config)}/{CHECKPOINT_LIST}")
    filesystem(storage).delete_file(path)


def _folder(config: Mapping[str, Any]) -> str:
    """Name of a trial's folder in the storage."""
    return f"trial-{config[LABEL]}"


def _attempt(
    config: dict[str, Any], spec: SearchSpec, storage: str, since: float, shortages: int
) -> Checkpoint:
    """Train from the last checkpoint there is, to the end; return the final one."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    # Ray Train takes one report of a worker each time it asks, by default every 2 seconds:
    # evaluations on little data are shorter, and whatever ends is noticed that much later.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    resources = spec.resources
    per_worker: dict[str, float] = {"CPU": resources.cpus_per_worker}
    if resources.gpus_per_worker:
        per_worker["GPU"] = resources.gpus_per_worker
    # Ray's annotation leaves the range out that it takes.
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
            # What is worth another attempt is decided above.
            failure_config=FailureConfig(max_failures=0),
            # One more than resuming needs, in case the last one is damaged.
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    result = trainer.fit()
    assert result.checkpoint is not None
    return result.checkpoint


def _keep_only(last: Checkpoint) -> None:
    """Delete a trial's other checkpoints, those too that an interruption left half uploaded."""
    from pyarrow.fs import FileSelector, FileType

    storage, (folder, _, own) = last.filesystem, last.path.rpartition("/")
    assert storage is not None
    for found in storage.get_file_info(FileSelector(folder)):
        if found.type == FileType.Directory and found.base_name != own:
            storage.delete_dir(found.path)
