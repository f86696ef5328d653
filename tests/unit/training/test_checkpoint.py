"""Checkpoints: what loading restores, and how damage is found before."""

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
from xlt_ray.training.ema import WeightAverage

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
    progress, average = Progress(step=8, best_step=4), WeightAverage(model, 0.0)
    return checkpoint.save(folder, model, optimizer, folder / "best", progress, average)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_a_written_checkpoint_is_whole(copy: Path) -> None:
    assert tuple(sorted(file.name for file in copy.iterdir())) == FILES
    assert is_whole(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert not is_whole(copy)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0.0, 0.5, 1.0])
def test_a_file_that_was_cut_off_is_found(copy: Path, name: str, keep: float) -> None:
    size = (copy / name).stat().st_size
    os.truncate(copy / name, min(size - 1, int(keep * size)))
    assert not is_whole(copy)


@pytest.mark.parametrize("name", FILES[:3])
def test_a_flipped_bit_is_found(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert not is_whole(copy)


@pytest.mark.parametrize(
    "text", ["[]", "{}", "null", '{"check_sums": 3}', '{"check_sums": {"a": 1}}']
)
def test_a_malformed_progress_is_found(copy: Path, text: str) -> None:
    (copy / "progress.json").write_text(text)
    assert not is_whole(copy)


def test_a_final_checkpoint_is_whole(tmp_path: Path) -> None:
    labels = np.array([0, 1])
    predictions = Predictions(labels, labels, np.array([0, 0]), ("en",))
    folder = checkpoint.save_selected(tmp_path, tiny_classifier("bert"), predictions, Progress())
    assert is_whole(folder)
    (folder / "predictions.npz").unlink()
    assert not is_whole(folder)


@pytest.mark.parametrize("best_step", [4, 8])
def test_loading_restores_weights_optimiser_and_progress(best_step: int, tmp_path: Path) -> None:
    model, best = tiny_classifier("bert"), tmp_path / "best"
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()
    best.write_bytes(b"the best weights")
    progress = Progress(
        step=8, best_step=best_step, best_objective=0.5, reports=[{"step": 8, "objective": 0.5}]
    )
    folder = checkpoint.save(tmp_path, model, optimizer, best, progress, WeightAverage(model, 0.0))

    other = tiny_classifier("bert")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    fresh = torch.optim.AdamW(other.parameters())
    copied = tmp_path / "copied"
    assert checkpoint.load(folder, other, fresh, copied, WeightAverage(other, 0.0)) == progress
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())
    states = [state["exp_avg"] for state in fresh.state_dict()["state"].values()]
    assert states and all(torch.allclose(state, torch.tensor(0.05)) for state in states)
    # The current weights are the best ones if the last evaluation was the best.
    source = folder / "model.safetensors" if best_step == 8 else best
    assert copied.read_bytes() == source.read_bytes()
