"""Soups against averages and predictions worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.support.core_toy import Toy, assert_close, train
from xlt_ray.distributed import Workers
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.training.build import TrialParts, build
from xlt_ray.training.soup import greedy_members, make_soup

OBJECTIVE = "dev/likelihood/en"


@pytest.fixture(scope="module")
def weights(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The selected weights of three trials that differ in method and radius."""
    folder = tmp_path_factory.mktemp("trials")
    trials = {
        "01": {"method.view.radius": 1.0},
        "02": {"method.name": "plain"},
        "03": {"method.name": "rs-da", "training.learning_rate": 8e-3},
    }
    return {
        name: train(toy.spec({"training.epochs": 3, **values}), folder / name).checkpoints[-1]
        / "model.safetensors"
        for name, values in trials.items()
    }


def parts_of(toy: Toy) -> TrialParts:
    return build(toy.spec({}), torch.device("cpu"))


def by_hand(parts: TrialParts, files: Sequence[Path]) -> dict[str, np.ndarray]:
    """Class ids of the dev and test texts, one text at a time, with the mean of the weights."""
    loaded = [load_file(file) for file in files]
    state = {
        name: torch.stack([one[name].double() for one in loaded]).mean(0).to(value.dtype)
        for name, value in loaded[0].items()
    }
    model = parts.objective.classifier.eval()
    model.load_state_dict(state, strict=False)
    found = {}
    for split, data in (("dev", parts.dev), ("test", parts.test)):
        ids = []
        for number in range(len(data.labels)):
            inputs = {name: torch.tensor([rows[number]]) for name, rows in data.inputs.items()}
            ids.append(int(model(**inputs).logits.argmax()))
        found[split] = np.array(ids)
    return found


@torch.no_grad()
def test_a_soup_is_the_mean_and_is_scored_as_such(
    toy: Toy, weights: dict[str, Path], tmp_path: Path
) -> None:
    soup = make_soup(
        parts_of(toy), weights, tmp_path, objective=OBJECTIVE, greedy=False, workers=Workers()
    )
    assert soup.members == ("01", "02", "03")
    loaded = [load_file(file) for file in weights.values()]
    mean = {n: sum(one[n].double() for one in loaded) / 3 for n in loaded[0]}
    written = load_file(tmp_path / "model.safetensors")
    assert_close({n: v.double() for n, v in written.items()}, mean, 1e-6)

    parts = parts_of(toy)
    expected = by_hand(parts, list(weights.values()))
    predictions = Predictions.load(tmp_path / "predictions.npz")
    assert predictions.predicted.tolist() == expected["test"].tolist()
    for split, prefix in (("dev", "selected"), ("test", "test")):
        data = getattr(parts, split)
        english = data.language == data.languages.index("en")
        right = (expected[split] == data.labels)[english].mean()
        assert soup.metrics[f"{prefix}/accuracy/en"] == pytest.approx(right)
    assert soup.metrics["objective"] == soup.metrics["selected/likelihood/en"]


def test_a_greedy_soup_is_never_worse_than_its_first_member(
    toy: Toy, weights: dict[str, Path], tmp_path: Path
) -> None:
    def made(name: str, files: dict[str, Path], greedy: bool) -> tuple[tuple[str, ...], float]:
        folder = tmp_path / name
        folder.mkdir()
        soup = make_soup(
            parts_of(toy), files, folder, objective=OBJECTIVE, greedy=greedy, workers=Workers()
        )
        return soup.members, soup.metrics["objective"]

    alone = {name: made(name, {name: file}, False)[1] for name, file in weights.items()}
    order = sorted(alone, key=lambda name: -alone[name])
    members, objective = made("greedy", {name: weights[name] for name in order}, True)
    assert members[0] == order[0] and objective >= alone[order[0]]
    # What it says is what its members give.
    again = made("again", {name: weights[name] for name in members}, False)[1]
    assert objective == pytest.approx(again)


def test_other_shapes_are_refused(toy: Toy, weights: dict[str, Path], tmp_path: Path) -> None:
    state = load_file(weights["01"])
    name = next(name for name in state if name.startswith("classifier"))
    state[name] = torch.zeros(3, *state[name].shape[1:])
    save_file(state, str(tmp_path / "other.safetensors"))
    files = {"01": weights["01"], "other": tmp_path / "other.safetensors"}
    with pytest.raises(ValueError, match=f"differ in the shape of {name}"):
        make_soup(
            parts_of(toy), files, tmp_path, objective=OBJECTIVE, greedy=False, workers=Workers()
        )


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_greedy_never_falls_and_keeps_the_first(values: list[float], random: object) -> None:
    names = [str(number) for number in range(len(values))]
    asked: list[tuple[tuple[str, ...], float]] = []

    def score(members: Sequence[str]) -> float:
        found = float(np.mean([values[int(name)] for name in members]))
        asked.append((tuple(members), found))
        return found

    members = greedy_members(names, score)
    assert members[0] == names[0]
    kept = [found for tried, found in asked if tried == members[: len(tried)]]
    assert kept == sorted(kept)
    # Each candidate was tried once, on top of those kept before it.
    assert [tried[-1] for tried, _ in asked] == names
