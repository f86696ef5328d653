"""What is checked before anything is trained, and told in one line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, BartConfig, BertConfig, GPT2Config, PreTrainedConfig

from tests.support.core_toy import Toy
from tests.unit.search.test_plan import complaint, methods, plan_of
from xlt_ray.search.make_plan import make_plan


def test_layer_that_a_proposed_method_needs(toy: Toy) -> None:
    alone = {"search.parameters": {}, "search.baselines": []}
    fixed = alone | {"method.name": "plain", "method.pull_layer": 2}
    assert make_plan(toy.spec(fixed)).training.steps == 6
    for names in (["plain"], ["plain", "ear-no-push"]):
        # The paper's trial needs the layer too.
        message = complaint(toy, methods(*names) | {"method.pull_layer": 2})
        assert "method.pull_layer: 2 is out of range" in message


def test_paths_become_absolute(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials run in other folders."""
    spec = toy.spec({})
    monkeypatch.chdir(toy.folder)
    relative = toy.spec(
        {
            "task": "task.yaml",
            "model": os.path.relpath(spec.model),
            "method.view.synonyms": "synonyms.json",
            "data_dir": ".",
        }
    )
    plan = make_plan(relative)
    assert plan.spec.task == spec.task and plan.spec.model == spec.model
    assert plan.spec.method.view.synonyms == spec.method.view.synonyms
    assert plan.spec.data_dir == str(toy.folder)
    monkeypatch.chdir(tmp_path)
    assert make_plan(plan.spec).examples == plan.examples


def test_files_of_any_ending_and_of_the_home_folder_become_absolute(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = toy.spec({})
    monkeypatch.setenv("HOME", str(toy.folder))
    monkeypatch.chdir(toy.folder)
    shutil.copy("synonyms.json", "words.txt")
    shutil.copy("task.yaml", "colours")
    changes = {
        "task": "colours",
        "model": f"~/{Path(spec.model).relative_to(toy.folder)}",
        "method.view.synonyms": "words.txt",
        "data_dir": "~",
    }
    plan = make_plan(toy.spec(changes))
    assert plan.spec.task == str(toy.folder / "colours") and plan.spec.model == spec.model
    assert plan.spec.method.view.synonyms == str(toy.folder / "words.txt")
    assert plan.spec.data_dir == str(toy.folder)
    monkeypatch.chdir(tmp_path)
    assert make_plan(plan.spec).examples == plan.examples


@pytest.mark.parametrize(
    "changes",
    [
        {"method.pull_layer": 2},
        {"search.parameters": {"method.pull_layer": {"distribution": "int", "low": 0, "high": 2}}},
        {
            "search.parameters": {
                "method.pull_layer": {"distribution": "categorical", "choices": [0, 2, 1]}
            }
        },
    ],
)
def test_layer_that_the_encoder_lacks(toy: Toy, changes: dict[str, Any]) -> None:
    message = complaint(toy, changes)
    assert "method.pull_layer: 2 is out of range" in message and "0 to 1" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"training.frozen_layers": 4},
        {
            "search.parameters": {
                "training.frozen_layers": {"distribution": "int", "low": 0, "high": 4}
            }
        },
    ],
)
def test_more_frozen_layers_than_there_are_is_told(toy: Toy, changes: dict[str, Any]) -> None:
    message = complaint(toy, changes)
    assert "training.frozen_layers: 4 is more than the 2 layers of" in message
    assert plan_of(toy, {"training.frozen_layers": 2}).training.steps == 6


def test_plain_method_needs_no_layer(toy: Toy) -> None:
    assert plan_of(toy, {"method.name": "plain", "method.pull_layer": 9}).training.steps == 6


@pytest.mark.parametrize(
    "objective", ["dev/accuracy/de", "test/accuracy/en", "dev/accuracy/mean", "accuracy"]
)
def test_objective_other_than_the_source_s_or_the_zero_shot_mean(toy: Toy, objective: str) -> None:
    message = complaint(toy, {"search.objective": objective})
    assert f"search.objective: '{objective}'" in message and "dev/accuracy/en" in message


@pytest.mark.parametrize(
    ("objective", "right"),
    [
        ("dev/accuracy/en_virtul", "dev/accuracy/en_virtual"),
        ("dev/accuracy/de_virtual", "dev/accuracy/en_virtual"),
        ("test/accuracy/en_virtual", "dev/accuracy/en_virtual"),
        ("dev/accuracy/ens", "dev/accuracy/en"),
        ("dev/accuracy/zero_shot", "dev/accuracy/zero_shot_mean"),
    ],
)
def test_wrong_objective_is_answered_with_the_nearest(toy: Toy, objective: str, right: str) -> None:
    message = complaint(toy, {"search.objective": objective})
    assert f"'{objective}'" in message and f"'{right}'" in message
    assert plan_of(toy, {"search.objective": right}).spec.search.objective == right


def test_longer_inputs_than_the_model_takes(toy: Toy) -> None:
    message = complaint(toy, {"training.max_length": 129})
    assert "training.max_length: 129" in message and "128" in message
    assert plan_of(toy, {"training.max_length": 128}).spec.training.max_length == 128


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(n_layer=2, n_embd=32, n_head=4),
        BartConfig(encoder_layers=2, decoder_layers=2, d_model=32),
        BertConfig(num_hidden_layers=2, hidden_size=32, is_decoder=True),
        AutoConfig.for_model("modernvbert"),
    ],
    ids=["decoder", "sequence to sequence", "encoder used as a decoder", "images and texts"],
)
def test_model_that_is_no_encoder(toy: Toy, tmp_path: Path, config: PreTrainedConfig) -> None:
    config.save_pretrained(tmp_path)
    message = complaint(toy, {"model": str(tmp_path)})
    assert str(tmp_path) in message
    assert f"'{config.model_type}' is not an encoder" in message and "xlm-roberta-base" in message


def test_model_folder_without_a_model(toy: Toy, tmp_path: Path) -> None:
    message = complaint(toy, {"model": str(tmp_path)})
    assert str(tmp_path) in message and "config.json" in message


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"task": "dmo"}, ["'dmo'", "'demo'"]),
        ({"data_dir": "/nowhere/at/all"}, ["/nowhere/at/all", "no such folder"]),
        ({"method.view.synonyms": "/nowhere/s.json"}, ["synonyms", "/nowhere/s.json"]),
    ],
)
def test_missing_task_data_or_synonyms(toy: Toy, changes: dict[str, Any], parts: list[str]) -> None:
    message = complaint(toy, changes)
    for part in parts:
        assert part in message, message
