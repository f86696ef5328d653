"""The selected weights: the best evaluation's, or the mean of the last ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.core_toy import Run, Toy, assert_close, train
from tests.support.core_workers import run_workers
from xlt_ray.distributed import Workers
from xlt_ray.training.selection import average_weights

RECIPE = {"training.epochs": 3, "training.evaluations_per_epoch": 2, "data.train_limit": 64}


@pytest.fixture(scope="module")
def averaged(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(
        toy.spec(RECIPE | {"training.average_last": 3}), tmp_path_factory.mktemp("averaged")
    )


def test_the_model_is_the_mean_of_the_weights_at_the_last_evaluations(averaged: Run) -> None:
    # A checkpoint's model.safetensors has the weights as trained, whatever is selected.
    last = [load_file(folder / "model.safetensors") for folder in averaged.checkpoints[3:6]]
    mean = {
        name: torch.stack([weights[name].double() for weights in last]).mean(0).float()
        if value.is_floating_point()
        else value
        for name, value in last[-1].items()
    }
    selected = load_file(averaged.checkpoints[-1] / "model.safetensors")
    assert_close(selected, mean, 1e-6)
    assert max((selected[name] - last[-1][name]).abs().max() for name in mean) > 1e-4


def test_averaging_leaves_the_training_as_it_is(toy: Toy, averaged: Run, tmp_path: Path) -> None:
    plain = train(toy.spec(RECIPE), tmp_path)
    for one, other in zip(averaged.checkpoints[:-1], plain.checkpoints[:-1], strict=True):
        assert_close(
            load_file(one / "model.safetensors"), load_file(other / "model.safetensors"), 0
        )
    losses = "train/loss/total"
    assert averaged.curve(losses) == plain.curve(losses)
    # The first three evaluations, and the first of the mean, score the weights as trained.
    dev = "dev/likelihood/en"
    assert averaged.curve(dev)[:4] == plain.curve(dev)[:4]
    assert averaged.curve(dev)[4:] != plain.curve(dev)[4:]


def test_the_objective_is_that_of_the_mean_not_the_best_so_far(toy: Toy, averaged: Run) -> None:
    *evaluations, last = averaged.reports
    for report in evaluations:
        assert report["objective"] == report["dev/accuracy/en"]
        assert report["best_step"] == report["step"]
    assert last["objective"] == evaluations[-1]["objective"]
    assert last["selected/likelihood/en"] == evaluations[-1]["dev/likelihood/en"]


@pytest.mark.parametrize("evaluation", [3, 4, 5, 6])
def test_resumed_training_has_the_same_mean(
    toy: Toy, averaged: Run, evaluation: int, tmp_path: Path
) -> None:
    spec = toy.spec(RECIPE | {"training.average_last": 3})
    resumed = train(spec, tmp_path, resume=averaged.checkpoints[evaluation - 1])
    assert resumed.reports == averaged.reports
    assert_close(resumed.weights, averaged.weights, 0)


@pytest.mark.parametrize(("average_last", "alike"), [(1, 1), (50, 6)])
def test_the_last_weights_alone_and_more_evaluations_than_there_are(
    toy: Toy, average_last: int, alike: int, tmp_path: Path
) -> None:
    run = train(toy.spec(RECIPE | {"training.average_last": average_last}), tmp_path)
    last = [load_file(folder / "model.safetensors") for folder in run.checkpoints[:-1]][-alike:]
    mean = {name: torch.stack([w[name].float() for w in last]).mean(0) for name in last[0]}
    found = {name: value.float() for name, value in run.weights.items() if name in mean}
    assert_close(found, mean, 1e-6)


def averaged_on_worker(workers: Workers, toy: Toy, folder: Path) -> dict[str, torch.Tensor]:
    run = train(
        toy.spec(RECIPE | {"training.average_last": 3}), folder / str(workers.rank), workers=workers
    )
    return {name: value.numpy() for name, value in run.weights.items()}


def test_workers_average_alike(toy: Toy, averaged: Run, tmp_path: Path) -> None:
    for weights in run_workers(2, averaged_on_worker, toy, tmp_path):
        found = {name: torch.from_numpy(value) for name, value in weights.items()}
        assert_close(found, averaged.weights, 1e-5)


def test_mean_of_files_on_hand_worked_numbers(tmp_path: Path) -> None:
    files = []
    for number, values in enumerate(([1.0, 4.0], [2.0, 0.0], [6.0, -1.0])):
        files.append(tmp_path / f"{number}.safetensors")
        tensors = {"weight": torch.tensor(values), "ids": torch.arange(2) + number}
        save_file(tensors, str(files[-1]))
    average_weights(files, tmp_path / "mean.safetensors")
    mean = load_file(tmp_path / "mean.safetensors")
    assert mean["weight"].tolist() == [3.0, 1.0] and mean["ids"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"weight": torch.zeros(3)}, "differ in the shape of weight"),
        ({"bias": torch.zeros(2)}, "different weights"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    other: dict[str, torch.Tensor], message: str, tmp_path: Path
) -> None:
    save_file({"weight": torch.zeros(2)}, str(tmp_path / "one.safetensors"))
    save_file(other, str(tmp_path / "other.safetensors"))
    with pytest.raises(ValueError, match=message):
        average_weights(
            [tmp_path / "one.safetensors", tmp_path / "other.safetensors"], tmp_path / "mean"
        )
    assert not (tmp_path / "mean").exists()
