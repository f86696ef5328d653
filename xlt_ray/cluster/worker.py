"""What each Ray Train worker of a trial runs."""

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


def train_worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker of a trial runs."""
    clock = Stopwatch(config["trial_started"])
    clock.lap("process")
    import torch
    from ray import train

    from xlt_ray.distributed import Workers, computes_in_bf16
    from xlt_ray.training.telemetry import Usage
    from xlt_ray.training.trainer import fine_tune

    spec = SearchSpec.model_validate(config["spec"])
    threads = max(1, int(spec.resources.cpus_per_worker))
    torch.set_num_threads(threads)
    context = train.get_context()
    device = _device()
    workers = Workers(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        device=device,
        bf16=computes_in_bf16(device, spec.training.precision),
    )
    objective, training_set, dev, test = build(spec, device, clock, config["search_started"])
    startup = {f"time/startup/{name}_seconds": value for name, value in clock.seconds.items()}
    startup["time/startup_seconds"] = sum(startup.values())
    faults: dict[str, float] = {}
    usage = Usage(device)

    def report(metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        # Training goes on while a checkpoint is uploaded. At the end it waits: the folder it writes
        # to is deleted then. So it does where the node is taken away.
        waits = metrics["step"] == metrics["steps"] or PREEMPTED in metrics
        train.report(
            {**metrics, **startup, **usage(), **faults},
            checkpoint=None if checkpoint is None else train.Checkpoint.from_directory(checkpoint),
            checkpoint_upload_mode=(
                train.CheckpointUploadMode.SYNC if waits else train.CheckpointUploadMode.ASYNC
            ),
            delete_local_checkpoint_after_upload=True,
        )

    with (
        tempfile.TemporaryDirectory(prefix="xlt-ray-") as folder,
        _last_whole_checkpoint() as (resume, damaged),
    ):
        if damaged:
            faults[DAMAGED] = damaged
        fine_tune(
            objective,
            training_set,
            dev,
            test,
            spec.training,
            selection=spec.search.objective,
            workers=workers,
            folder=Path(folder),
            report=report,
            resume=resume,
            memory_shortages=config["memory_shortages"],
            preempted=_Preemption(),
        )


class _Preemption:
    """Whether one of the workers' nodes is about to be taken away; true once for each attempt."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self) -> bool:
        from ray import train

        if self._told or train.get_preemption_info() is None:
            return False
        self._told = True
        return True


@contextlib.contextmanager
def _last_whole_checkpoint() -> Iterator[tuple[Path | None, int]]:
    """The trial's newest checkpoint that is as it was written, and how many newer ones are not."""
    from ray import train

    from xlt_ray.training.checkpoint import is_whole

    reported = train.get_all_reported_checkpoints(timeout_s=60) if train.get_checkpoint() else []
    checkpoints = [kept.checkpoint for kept in reported] or _unreported_checkpoints()
    for newer, checkpoint in enumerate(reversed(checkpoints)):
        with checkpoint.as_directory() as folder:
            if is_whole(Path(folder)):
                # Of those that nobody reported, some may just not have arrived in whole.
                yield Path(folder), newer if reported else 0
                return
    yield None, len(reported)


def _unreported_checkpoints() -> list[Checkpoint]:
    """What an earlier attempt left in the trial's folder, where the list of it is lost; by age."""
    from pyarrow.fs import FileSelector, FileType
    from ray import train

    storage = train.get_context().get_storage()
    files = storage.storage_filesystem
    selector = FileSelector(storage.experiment_fs_path, allow_not_found=True)
    # Ray Train names them by their time.
    folders = sorted(
        found.path for found in files.get_file_info(selector) if found.type == FileType.Directory
    )
    return [train.Checkpoint(folder, files) for folder in folders]


def _device() -> torch.device:
    """The GPU that Ray Train gave this worker, else the CPU."""
    from ray.train.torch import get_device

    return get_device()
