"""The function that each Ray Train worker of a trial runs.

:mod:`xlt_ray.cluster.trainable` passes it to Ray Train.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xlt_ray.config.spec import SearchSpec
from xlt_ray.names import DAMAGED, PREEMPTED
from xlt_ray.training.build import build
from xlt_ray.training.telemetry import Stopwatch

if TYPE_CHECKING:
    import torch
    from ray.train import Checkpoint

    from xlt_ray.distributed import Workers


def train_worker(config: dict[str, Any]) -> None:
    """Train a trial as one of its Ray Train workers.

    Args:
        config: `spec` (the trial's, as JSON), `trial_started` and `search_started` (seconds since
            1970) and `memory_shortages` (number of earlier attempts that ran out of memory).
    """
    clock = Stopwatch(config["trial_started"])
    clock.lap("process")
    from xlt_ray.training.trainer import Trainer

    spec = SearchSpec.model_validate(config["spec"])
    workers = _workers(spec)
    parts = build(spec, workers.device, clock, config["search_started"])
    with tempfile.TemporaryDirectory(prefix="xlt-ray-") as folder:
        # The checkpoint may be a copy from a bucket: gigabytes of disk until it is read.
        with last_whole_checkpoint() as (resume, damaged):
            extra = startup_metrics(clock) | ({DAMAGED: float(damaged)} if damaged else {})
            trainer = Trainer(
                parts,
                spec.training,
                selection=spec.search.objective,
                workers=workers,
                folder=Path(folder),
                report=_Reporter(extra, workers.device),
                preempted=Preemption(),
            )
            if resume is not None:
                trainer.resume(resume)
        trainer.train(config["memory_shortages"])


def _workers(spec: SearchSpec) -> Workers:
    """Return this worker and its peers, as Ray Train set them up."""
    import torch
    from ray import train
    from ray.train.torch import get_device

    from xlt_ray.distributed import Workers, computes_in_bf16

    torch.set_num_threads(max(1, int(spec.resources.cpus_per_worker)))
    context, device = train.get_context(), get_device()
    return Workers(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        device=device,
        bf16=computes_in_bf16(device, spec.training.precision),
    )


def startup_metrics(clock: Stopwatch) -> dict[str, float]:
    """Return the seconds of each part of the worker's start, and their sum, as metrics."""
    startup = {f"time/startup/{name}_seconds": value for name, value in clock.seconds.items()}
    return startup | {"time/startup_seconds": sum(startup.values())}


class _Reporter:
    """Reports metrics and checkpoints to Ray Train.

    Args:
        extra: Metrics to add to every report.
        device: The worker's device; its memory use is reported as well as the machine's.
    """

    def __init__(self, extra: Mapping[str, float], device: torch.device) -> None:
        from xlt_ray.training.telemetry import Usage

        self._extra = extra
        self._usage = Usage(device)

    def __call__(self, metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        """Report metrics and, on rank 0, the folder of a checkpoint."""
        from ray import train

        # Training continues while a checkpoint is uploaded. It waits at the end, when the
        # checkpoint's folder is deleted, and when the node is about to be preempted.
        waits = metrics["step"] == metrics["steps"] or PREEMPTED in metrics
        train.report(
            {**metrics, **self._extra, **self._usage()},
            checkpoint=None if checkpoint is None else train.Checkpoint.from_directory(checkpoint),
            checkpoint_upload_mode=(
                train.CheckpointUploadMode.SYNC if waits else train.CheckpointUploadMode.ASYNC
            ),
            delete_local_checkpoint_after_upload=True,
        )


class Preemption:
    """Returns whether a node of the workers is about to be preempted: true once per attempt."""

    def __init__(self) -> None:
        self._reported = False

    def __call__(self) -> bool:
        from ray import train

        if self._reported or train.get_preemption_info() is None:
            return False
        self._reported = True
        return True


@contextlib.contextmanager
def last_whole_checkpoint() -> Iterator[tuple[Path | None, int]]:
    """Yield the trial's newest whole checkpoint, or None, and the number of newer, damaged ones."""
    from ray import train

    from xlt_ray.training.checkpoint import is_whole

    reported = train.get_all_reported_checkpoints(timeout_s=60) if train.get_checkpoint() else []
    checkpoints = [kept.checkpoint for kept in reported] or _unreported_checkpoints()
    for newer, checkpoint in enumerate(reversed(checkpoints)):
        with checkpoint.as_directory() as folder:
            if is_whole(Path(folder)):
                # Newer checkpoints that nobody reported need not be damaged: their upload may
                # have been interrupted.
                yield Path(folder), newer if reported else 0
                return
    yield None, len(reported)


def _unreported_checkpoints() -> list[Checkpoint]:
    """Return the checkpoints in the trial's folder, oldest first; used if their list is lost."""
    from pyarrow.fs import FileSelector, FileType
    from ray import train

    storage = train.get_context().get_storage()
    files = storage.storage_filesystem
    selector = FileSelector(storage.experiment_fs_path, allow_not_found=True)
    # Ray Train names the folders by time.
    folders = sorted(
        found.path for found in files.get_file_info(selector) if found.type == FileType.Directory
    )
    return [train.Checkpoint(folder, files) for folder in folders]
