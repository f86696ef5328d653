"""A checkpoint that is not what was written is told before it is loaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.core_models import tiny_classifier
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.training import checkpoint
from xlt_ray.training.checkpoint import Progress, is_whole

FILES = ("best.safetensors", "model.safetensors", "optimizer.pt", "progress.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    model = tiny_classifier("bert")
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    (folder / "best").write_bytes(b"the best weights")
    return checkpoint.save(folder, model, optimizer, folder / "best", Progress(step=8, best_step=4))


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_what_was_written_is_whole(copy: Path) -> None:
    assert tuple(sorted(file.name for file in copy.iterdir())) == FILES
    assert is_whole(copy)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_told(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert not is_whole(copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0.0, 0.5, 1.0])
def test_file_that_was_cut_off_is_told(copy: Path, name: str, keep: float) -> None:
    size = (copy / name).stat().st_size
    os.truncate(copy / name, min(size - 1, int(keep * size)))
    assert not is_whole(copy)


@pytest.mark.parametrize("name", FILES[:3])
def test_flipped_bit_is_told(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert not is_whole(copy)


@pytest.mark.parametrize(
    "text", ["[]", "{}", "null", '{"check_sums": 3}', '{"check_sums": {"a": 1}}']
)
def test_progress_that_is_none_is_told(copy: Path, text: str) -> None:
    (copy / "progress.json").write_text(text)
    assert not is_whole(copy)


def test_finished_training_is_whole(tmp_path: Path) -> None:
    labels = np.array([0, 1])
    predictions = Predictions(labels, labels, np.array([0, 0]), ("en",))
    folder = checkpoint.save_selected(tmp_path, tiny_classifier("bert"), predictions, Progress())
    assert is_whole(folder)
    (folder / "predictions.npz").unlink()
    assert not is_whole(folder)
