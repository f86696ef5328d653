"""One trial: a Tune function trainable that launches a Ray Train run of its workers."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xlt_ray.config.spec import SearchSpec, with_values
from xlt_ray.storage import filesystem, path_in
from xlt_ray.training.faults import DAMAGED, PREEMPTED, NonFiniteLoss, OutOfMemory
from xlt_ray.training.stopwatch import Stopwatch

if TYPE_CHECKING:
    import torch
    from ray.train import Checkpoint

LABEL = "label"
"""Key of a trial's configuration that holds its name; the others are keys of the spec."""


def trial_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's values of spec keys, without its label."""
    return {key: value for key, value in config.items() if key != LABEL}


def trial_spec(spec: SearchSpec, config: Mapping[str, Any]) -> SearchSpec:
    """The spec of one trial: the search's with the trial's values in place, searching nothing."""
    own = with_values(spec, trial_values(config))
    alone = own.search.model_copy(update={"parameters": {}, "num_trials": 1, "baselines": ()})
    return own.model_copy(update={"search": alone})


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
            if not rebuilt and "CheckpointManagerInitializationError" in _told(error):
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
    path = path_in(storage, f"{_folder(config)}/checkpoint_manager_snapshot.json")
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
            "spec": trial_spec(spec, config).model_dump(mode="json"),
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


def train_worker(config: dict[str, Any]) -> None:
    """What each Ray Train worker of a trial runs."""
    clock = Stopwatch(config["trial_started"])
    clock.lap("process")
    import torch
    from ray import train

    from xlt_ray.config.spec import SearchSpec
    from xlt_ray.distributed import Workers, computes_in_bf16
    from xlt_ray.training.trainer import fine_tune
    from xlt_ray.training.usage import Usage

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


def build(
    spec: SearchSpec,
    device: torch.device,
    clock: Stopwatch | None = None,
    since: float | None = None,
) -> tuple[Any, Any, Any, Any]:
    """Build what a trial trains and scores, from this machine's cache.

    Args:
        spec: The trial's spec.
        device: Where the model goes.
        clock: Told of the time for imports, preparation, tokenizer, data and model.
        since: As of :func:`xlt_ray.data.preparation.prepare`.

    Returns:
        The objective, the training set, and the dev and test sets.
    """
    import torch
    from transformers import AutoTokenizer

    from xlt_ray.data.preparation import prepare
    from xlt_ray.data.training_set import TrainingSet, evaluation_set, with_virtual_source
    from xlt_ray.encoders.loading import load_classifier
    from xlt_ray.method.noise_view import embedding_view, mean_norm
    from xlt_ray.method.objective import Objective
    from xlt_ray.method.synonym_view import SynonymView
    from xlt_ray.method.synonyms import load_synonyms

    clock = clock or Stopwatch()
    clock.lap("imports")
    prepared = prepare(spec, since)
    clock.lap("preparation")
    tokenizer = AutoTokenizer.from_pretrained(prepared.tokenizer, trust_remote_code=False)
    clock.lap("tokenizer")
    vocabulary = prepared.vocabulary()
    method, seed = spec.method, spec.training.seed
    text_view: SynonymView | Literal["noise"] | None = None
    if method.view_kind == "synonym":
        text_view = SynonymView(load_synonyms(method.view.synonyms), method.view.radius, seed)
    elif method.view_kind is not None:
        text_view = "noise"
    training_set = TrainingSet(
        prepared.task,
        tokenizer,
        spec.training.max_length,
        text_view,
        vocabulary,
        seed=seed,
        words="pull" in method.terms and method.pull_alignment == "word",
        padded=method.reduction == "padded" and method.uses("reduction"),
    )
    clock.lap("data")
    classifier = load_classifier(prepared.encoder, prepared.labels, seed)
    noise_view = None
    if text_view == "noise":
        table: Any = classifier.get_input_embeddings().weight
        counts = torch.from_numpy(training_set.counts(len(table)))
        noise_view = embedding_view(method, mean_norm(table, counts))
    objective = Objective(classifier, method, noise_view).to(device)
    clock.lap("model")
    pad_id = tokenizer.pad_token_id
    dev, test = (
        evaluation_set(prepared.task, split, pad_id, vocabulary) for split in ("dev", "test")
    )
    # Equal for all trials, whatever their own views are: it may be what they are compared by.
    virtual = SynonymView(load_synonyms(method.view.synonyms), "paper", seed=0)
    dev = with_virtual_source(
        dev, prepared.task, tokenizer, spec.training.max_length, virtual, vocabulary
    )
    clock.lap("data")
    return objective, training_set, dev, test


def _device() -> torch.device:
    """The GPU that Ray Train gave this worker, else the CPU."""
    from ray.train.torch import get_device

    return get_device()
