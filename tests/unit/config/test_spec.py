"""Search specs: the paper's recipe, searched keys, trial values, error messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.small_search import SMALL, complaint
from xlt_ray.config.keys import flatten
from xlt_ray.config.loading import (
    load_spec,
)
from xlt_ray.config.method import PAPER_METHOD, MethodSpec
from xlt_ray.config.spec import DataSpec, TrainingSpec, with_values
from xlt_ray.errors import UserError


@pytest.mark.parametrize("name", ["xnli_mbert", "xnli_xlmr", "pawsx_mbert", "pawsx_xlmr"])
def test_recipe_is_the_paper_s(name: str) -> None:
    spec = load_spec(name)
    task, _, model = name.partition("_")
    assert spec.task == task and spec.method.name == "ear"
    assert spec.model.endswith(
        {"mbert": "bert-base-multilingual-cased", "xlmr": "xlm-roberta-base"}[model]
    )
    recipe = spec.training
    assert recipe.learning_rate == 2e-5
    assert recipe.weight_decay == 0
    assert recipe.adam_epsilon == 1e-8
    assert recipe.gradient_clip == 1.0
    assert recipe.batch_size == 32
    assert recipe.max_length == 128
    assert recipe.epochs == {"xnli": 1, "pawsx": 30}[task]
    assert recipe.max_steps is None
    assert recipe.seed == 7
    assert spec.method.push_weight == 0.1
    assert spec.method.pull_weight == 1
    assert spec.method.pull_layer == 5
    assert spec.method.view.radius == "paper"
    assert spec.search.objective == "dev/accuracy/en"
    limits = spec.data
    assert (limits.train_limit, limits.dev_limit, limits.test_limit) == (None, None, None)


def test_paper_s_values_are_unbounded_absolute_push() -> None:
    paper = with_values(
        load_spec("demo"), {f"method.{key}": value for key, value in PAPER_METHOD.items()}
    ).method
    assert (paper.push_weight, paper.push_margin, paper.push_distance) == (0.1, None, "absolute")
    assert (paper.pull_weight, paper.view.radius) == (1.0, "paper")


def test_spec_is_frozen() -> None:
    spec = load_spec("demo")
    for model in (spec, spec.method, spec.training, spec.search, spec.method.view):
        field = next(iter(type(model).model_fields))
        with pytest.raises(ValidationError):
            setattr(model, field, getattr(model, field))


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("trainig: {}", ["unknown key 'trainig'", "did you mean 'training'"]),
        ("training: {learning_rat: 1}", ["'learning_rat' in training", "'learning_rate'"]),
        ("method: {view: {radios: 1}}", ["'radios' in method.view", "'radius'"]),
        ("training: {batch_size: many}", ["training.batch_size", "integer", "'many'"]),
        ("training: {batch_size: 2.5}", ["training.batch_size", "integer", "2.5"]),
        ("training: {trim_vocabulary: perhaps}", ["training.trim_vocabulary", "boolean"]),
        ("training: [1]", ["training", "mapping"]),
        ("training:", ["training", "mapping"]),
        ("training: {learning_rate: 0}", ["training.learning_rate", "0", "> 0"]),
        ("training: {learning_rate: .nan}", ["training.learning_rate", "finite"]),
        ("training: {seed: -1}", ["training.seed", "-1", ">= 0", "< 4294967296"]),
        ("method: {view: {radius: 1.5}}", ["method.view.radius", "1.5", ">= 0", "<= 1"]),
        ("method: {view: {radius: papr}}", ["method.view.radius", "'papr'", "'paper'"]),
        ("method: {name: eer}", ["method.name", "'eer'", "'ear'"]),
        ("method: {view: {kind: randm}}", ["method.view.kind", "'randm'", "'random'"]),
        (
            "method: {reduction: padded, pull_alignment: word}",
            ["method", "reduction: padded", "pull_alignment: token"],
        ),
        ("method: {push_margin: -0.1}", ["method.push_margin", "-0.1", ">= 0"]),
        (
            "resources: {workers_per_trial: 3, max_workers_per_trial: 2}",
            ["max_workers_per_trial: 2 is less than workers_per_trial, 3"],
        ),
        ("resources: {gpus_per_worker: 1.5}", ["resources.gpus_per_worker", "whole"]),
        (
            "resources: {gpus_per_worker: 0.5, workers_per_trial: 2}",
            ["gpus_per_worker: 0.5", "NCCL refuses"],
        ),
        (
            "resources: {gpus_per_worker: 0.5, max_workers_per_trial: 2}",
            ["gpus_per_worker: 0.5", "NCCL refuses"],
        ),
        ("name: a b", ["name", "a b"]),
        ("task: xnli", ["line 7", "'task' is given twice"]),
        ("training: {seed: 1, seed: 2}", ["line 7", "'seed' is given twice"]),
        ("data: {[a]: 1}", ["line 7", "key"]),
        ("data: [", ["line 8"]),
        ("1: 2", ["1", "string"]),
    ],
)
def test_mistake_in_a_file_is_told_in_one_line(small: Path, line: str, parts: list[str]) -> None:
    small.write_text(f"{SMALL}{line}\n")
    message = complaint(small)
    for part in [str(small), *parts]:
        assert part in message, message


UNIFORM = {"distribution": "uniform", "low": 0.0, "high": 1.0}


WHOLE = {"distribution": "int", "low": 1, "high": 3}


def kinds(*names: str) -> dict[str, Any]:
    return {"distribution": "categorical", "choices": list(names)}


@pytest.mark.parametrize(
    ("name", "key", "distribution"),
    [
        ("plain", "method.push_margin", UNIFORM),
        ("plain", "method.view.radius", UNIFORM),
        ("rs-da", "method.pull_weight", UNIFORM),
        ("rs-da", "method.view.noise_radius", UNIFORM),
        ("rs-rp", "method.view.radius", UNIFORM),
        ("rs-rp", "method.view.ascent_steps", WHOLE),
        ("adv", "method.view.kind", kinds("random", "adversarial")),
        ("ear", "method.view.noise_radius", UNIFORM),
        ("ear-no-push", "method.push_weight", UNIFORM),
        ("ear-no-pull", "method.pull_layer", WHOLE),
        ("ear-no-robust", "method.robust_weight", UNIFORM),
    ],
)
def test_searched_key_that_the_method_does_not_use(
    small: Path, name: str, key: str, distribution: dict[str, Any]
) -> None:
    parameters = {"training.learning_rate": {**UNIFORM, "low": 0.1}, key: distribution}
    overrides = {"method.name": name, "search.parameters": parameters}
    message = complaint(small, overrides)
    assert f"search.parameters.{key}: method {name} " in message and "does not use it" in message
    del parameters[key]
    assert set(load_spec(str(small), overrides).search.parameters) == {"training.learning_rate"}


def test_searched_kind_of_view_brings_its_own_keys(small: Path) -> None:
    own = {
        "method.view.radius": UNIFORM,
        "method.view.noise_radius": UNIFORM,
        "method.view.ascent_steps": WHOLE,
    }

    def searching(*names: str) -> dict[str, Any]:
        return {"search.parameters": own | {"method.view.kind": kinds(*names)}}

    spec = load_spec(str(small), searching("synonym", "adversarial"))
    assert set(spec.search.parameters) == {*own, "method.view.kind"}
    assert [m.view_kind for m in spec.methods()] == ["synonym", "adversarial"]
    assert "view.radius: method ear" in complaint(small, searching("random", "adversarial"))
    assert "view.ascent_steps: method ear" in complaint(small, searching("synonym", "random"))
    message = complaint(small, searching("synonym", "adversarial", "rndom"))
    assert "view.kind: 'rndom'" in message and "'random'" in message


def test_searched_method_brings_the_keys_of_each(small: Path) -> None:
    def searching(choices: list[str], *keys: str) -> dict[str, Any]:
        own = {key: WHOLE if key.endswith("_steps") else UNIFORM for key in keys}
        return {"search.parameters": {**own, "method.name": kinds(*choices)}}

    keys = ("method.push_margin", "method.view.radius", "method.view.noise_radius")
    spec = load_spec(str(small), searching(["plain", "rs-rp", "ear"], *keys))
    assert spec.method_names() == ["plain", "rs-rp", "ear"]
    assert [m.view_kind for m in spec.methods()] == [None, "random", "synonym"]
    # The search file's own method is not proposed here.
    message = complaint(small, searching(["plain", "rs-da"], "method.push_margin"))
    expected = "method.push_margin: method plain or rs-da (views: none or synonym) does not use it"
    assert expected in message
    message = complaint(small, searching(["rs-da", "ear"], "method.view.noise_radius"))
    assert "noise_radius: method rs-da or ear (views: synonym) does not use it" in message
    message = complaint(small, searching(["rs-da", "eer"], "method.push_margin"))
    assert "name: 'eer'" in message and "'ear'" in message

    # A kind of view is searched for the methods that have no kind of their own.
    both = searching(["plain", "rs-rp", "ear"], "method.view.ascent_steps")
    kind = {"method.view.kind": kinds("synonym", "adversarial")}
    both["search.parameters"] |= kind
    proposed = load_spec(str(small), both).methods()
    assert [(m.name, m.view_kind) for m in proposed] == [
        ("plain", None),
        ("rs-rp", "random"),
        ("ear", "synonym"),
        ("ear", "adversarial"),
    ]
    both["search.parameters"]["method.name"] = kinds("plain", "adv")
    assert "view.kind: method plain or adv" in complaint(small, both)


def test_the_search_over_methods_proposes_each_with_its_own_keys() -> None:
    spec = load_spec("xnli_methods")
    assert spec.method_names() == ["plain", "rs-da", "rs-rp", "ear"]
    assert spec.training.average_last == 3
    assert spec.search.objective == "dev/calibrated/en_and_virtual"
    searched = [key.removeprefix("method.") for key in spec.search.parameters]
    used = {m.name: [key for key in searched[:-1] if m.uses(key)] for m in spec.methods()}
    assert searched[-1] == "training.learning_rate"
    assert used == {
        "plain": ["name"],
        "rs-da": ["name", "view.radius"],
        "rs-rp": ["name", "view.noise_radius"],
        "ear": ["name", "push_margin", "push_weight", "pull_weight", "view.radius"],
    }


def test_word_alignment_is_not_searched_beside_padding(small: Path) -> None:
    key = "search.parameters.method.pull_alignment"
    searched = {key: kinds("token", "word")}
    load_spec(str(small), searched)
    message = complaint(small, searched | {"method.reduction": "padded"})
    assert "reduction: padded" in message and "pull_alignment: token" in message


def test_trial_s_values_change_only_themselves() -> None:
    spec = load_spec("demo")
    values = {"method.push_margin": 0.25, "method.view.radius": 0.25, "training.seed": 3}
    changed = with_values(spec, values)
    before, after = flatten(spec.model_dump()), flatten(changed.model_dump())
    assert {key: after[key] for key in after if after[key] != before[key]} == values
    assert load_spec("demo") == spec


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"method.push_margn": 1}, ["push_margn", "push_margin"]),
        ({"method.view.radius": 2}, ["view.radius", "2", "<= 1"]),
        ({"search.num_trials": 2}, ["search.num_trials", "method", "training"]),
        ({"nothing": 2}, ["nothing", "method", "training"]),
    ],
)
def test_trial_s_values_are_checked(values: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        with_values(load_spec("demo"), values)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_defaults_are_the_paper_s() -> None:
    method, recipe = MethodSpec(), TrainingSpec()
    assert method.push_margin is None and method.push_distance == "absolute"
    assert flatten(method.model_dump()).items() >= PAPER_METHOD.items()
    assert (recipe.learning_rate, recipe.batch_size, recipe.epochs) == (2e-5, 32, 1)


def test_command_line_imports_nothing_heavy() -> None:
    code = "import sys, xlt_ray.cli.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "xlt_ray.config.spec" in imported
    assert not imported & {"torch", "ray", "transformers", "mlflow", "datasets", "optuna"}


def test_a_limit_of_target_texts_that_are_not_scored_is_refused() -> None:
    assert DataSpec(target_dev_limit=5).dev_languages == "all"
    with pytest.raises(ValidationError, match="target_dev_limit: has no effect"):
        DataSpec(target_dev_limit=5, dev_languages="source")
