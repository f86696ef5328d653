"""The average of weights over the steps: its arithmetic, and its place in a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.support.core_toy import Run, Toy, assert_close, train
from xlt_ray.training.ema import WeightAverage
from xlt_ray.training.trainer import Trainer

DECAY = 0.7
RECIPE = {
    "training.epochs": 2,
    "training.evaluations_per_epoch": 2,
    "training.ema_decay": DECAY,
    "data.train_limit": 64,
}


def test_average_on_hand_worked_numbers(tmp_path: Path) -> None:
    model = nn.Linear(2, 1, bias=False)
    average = WeightAverage(model, 0.75)
    for values in ([4.0, 0.0], [8.0, 4.0], [0.0, 8.0]):
        model.weight.data = torch.tensor([values])
        average.update()
    # [4, 0], then 0.75 [4, 0] + 0.25 [8, 4] = [5, 1], then 0.75 [5, 1] + 0.25 [0, 8].
    with average.in_use():
        assert model.weight.tolist() == [[3.75, 2.75]]
    assert model.weight.tolist() == [[0.0, 8.0]]
    average.save(tmp_path / "average")
    again = WeightAverage(model, 0.75)
    again.load(tmp_path / "average")
    with again.in_use():
        assert model.weight.tolist() == [[3.75, 2.75]]


def test_no_decay_is_no_average(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    average = WeightAverage(model, 0.0)
    average.update()
    before = model.weight.item()
    model.weight.data.add_(1)
    with average.in_use():
        assert model.weight.item() == before + 1
    average.save(tmp_path / "average")
    assert not (tmp_path / "average").exists()


@pytest.fixture(scope="module")
def averaged(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(toy.spec(RECIPE, dropout=0.1), tmp_path_factory.mktemp("averaged"))


def naive_averages(toy: Toy, folder: Path, changes: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """The average after every step of the same training without one, in float64."""
    found: list[dict[str, np.ndarray]] = []
    step = Trainer.step

    def watched(self: Trainer, work: Any) -> None:
        step(self, work)
        now = {n: p.detach().double().numpy() for n, p in self.classifier.named_parameters()}
        if found:
            now = {n: DECAY * found[-1][n] + (1 - DECAY) * value for n, value in now.items()}
        found.append({name: value.copy() for name, value in now.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", watched)
        train(toy.spec(changes | {"training.ema_decay": 0.0}, dropout=0.1), folder)
    return found


def test_kept_weights_are_the_naive_average_and_training_is_as_without(
    toy: Toy, averaged: Run, tmp_path: Path
) -> None:
    reference = naive_averages(toy, tmp_path / "reference", RECIPE)
    best = int(averaged.reports[-1]["best_step"])
    kept = {name: averaged.weights[name].double().numpy() for name in reference[0]}
    assert_close(kept, reference[best - 1], 1e-6)
    plain = train(toy.spec(RECIPE | {"training.ema_decay": 0.0}, dropout=0.1), tmp_path / "plain")
    for one, other in zip(averaged.checkpoints[:-1], plain.checkpoints[:-1], strict=True):
        name = "model.safetensors"
        assert_close(load_file(one / name), load_file(other / name), 0)
    assert averaged.curve("train/loss/total") == plain.curve("train/loss/total")
    assert averaged.curve("dev/likelihood/en") != plain.curve("dev/likelihood/en")


@pytest.mark.parametrize("evaluation", [1, 2, 4])
@pytest.mark.parametrize("average_last", [None, 2])
def test_resumed_training_has_the_same_average(
    toy: Toy, averaged: Run, average_last: int | None, evaluation: int, tmp_path: Path
) -> None:
    spec = toy.spec(RECIPE | {"training.average_last": average_last}, dropout=0.1)
    whole = averaged if average_last is None else train(spec, tmp_path / "whole")
    resumed = train(spec, tmp_path / "resumed", resume=whole.checkpoints[evaluation - 1])
    assert resumed.reports == whole.reports
    assert_close(resumed.weights, whole.weights, 0)


def test_average_last_is_the_mean_of_the_averages(toy: Toy, tmp_path: Path) -> None:
    changes = RECIPE | {"training.average_last": 2}
    run = train(toy.spec(changes, dropout=0.1), tmp_path / "run")
    reference = naive_averages(toy, tmp_path / "reference", changes)
    steps = [int(report["step"]) for report in run.reports[:-1]][-2:]
    mean = {n: (reference[steps[0] - 1][n] + reference[steps[1] - 1][n]) / 2 for n in reference[0]}
    assert_close({name: run.weights[name].double().numpy() for name in mean}, mean, 1e-6)
