"""What a worker does around the training: which checkpoint it resumes from, what it reports."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pyarrow.fs import LocalFileSystem
from ray import train

from tests.support.core_models import tiny_classifier
from xlt_ray.cluster.worker import Preemption, last_whole_checkpoint, startup_metrics
from xlt_ray.training import checkpoint
from xlt_ray.training.checkpoint import Progress
from xlt_ray.training.ema import WeightAverage
from xlt_ray.training.telemetry import Stopwatch


@pytest.fixture
def written(tmp_path: Path) -> list[Path]:
    """Three checkpoints of one training, by age."""
    model = tiny_classifier("bert")
    optimizer = torch.optim.AdamW(model.parameters())
    best, average = tmp_path / "best", WeightAverage(model, 0.0)
    return [
        checkpoint.save(tmp_path, model, optimizer, best, Progress(step=step), average)
        for step in (1, 2, 3)
    ]


def cut_off(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def report(monkeypatch: pytest.MonkeyPatch, folders: list[Path]) -> None:
    """Let Ray Train have a list of these checkpoints, by age."""
    kept = [SimpleNamespace(checkpoint=train.Checkpoint.from_directory(str(f))) for f in folders]
    monkeypatch.setattr(train, "get_checkpoint", lambda: kept[-1].checkpoint if kept else None)
    monkeypatch.setattr(train, "get_all_reported_checkpoints", lambda timeout_s: kept)


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_worker_resumes_from_the_newest_whole_checkpoint(
    damaged: int, written: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    report(monkeypatch, written)
    for folder in written[3 - damaged :]:
        cut_off(folder)
    with last_whole_checkpoint() as (found, newer):
        assert (found, newer) == (written[2 - damaged], damaged)


def test_a_worker_starts_anew_if_every_checkpoint_is_damaged(
    written: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    report(monkeypatch, written)
    for folder in written:
        cut_off(folder)
    with last_whole_checkpoint() as found:
        assert found == (None, 3)


@pytest.mark.parametrize("exists", [True, False])
def test_without_a_list_the_storage_has_the_checkpoints(
    exists: bool, written: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest may be incomplete because its upload was interrupted: that is no damage."""
    report(monkeypatch, [])
    cut_off(written[2])
    folder = tmp_path if exists else tmp_path / "nothing"
    storage = SimpleNamespace(storage_filesystem=LocalFileSystem(), experiment_fs_path=str(folder))
    context = SimpleNamespace(get_storage=lambda: storage)
    monkeypatch.setattr(train, "get_context", lambda: context)
    with last_whole_checkpoint() as found:
        assert found == (written[1] if exists else None, 0)


def test_a_preemption_is_noticed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = itertools.chain([None, None], itertools.repeat("a node"))
    monkeypatch.setattr(train, "get_preemption_info", lambda: next(answers))
    preempted = Preemption()
    assert [preempted() for _ in range(5)] == [False, False, True, False, False]


def test_the_parts_of_the_start_add_up() -> None:
    clock = Stopwatch()
    clock.seconds = {"process": 1.5, "data": 2.0}
    assert startup_metrics(clock) == {
        "time/startup/process_seconds": 1.5,
        "time/startup/data_seconds": 2.0,
        "time/startup_seconds": 3.5,
    }
