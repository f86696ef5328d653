"""Search files: what ships, what comes back, and what a mistake is answered with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from xlt_ray.config.keys import flatten
from xlt_ray.config.loading import (
    available_searches,
    dump_spec,
    find_search,
    load_spec,
    parse_override,
    read_yaml,
)
from xlt_ray.config.method import PAPER_METHOD, PRESETS, MethodSpec
from xlt_ray.config.spec import SearchSpec, TrainingSpec, with_values
from xlt_ray.errors import UserError

SMALL = """\
task: demo
model: some/encoder
search:
  parameters:
    method.push_margin: {distribution: uniform, low: 0.0, high: 0.5}
    training.learning_rate: {distribution: log_uniform, low: 1e-5, high: 5e-5}
"""
MARGIN = "search.parameters.method.push_margin"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def complaint(path: Path, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_spec(str(path), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_shipped_searches_load() -> None:
    assert set(available_searches()) == {
        "demo", "pawsx_mbert", "pawsx_xlmr", "xnli_mbert", "xnli_small", "xnli_xlmr"
    }  # fmt: skip
    for name in available_searches():
        spec = load_spec(name)
        assert spec.name == name and spec.description


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


@pytest.mark.parametrize("name", [*available_searches(), "small"])
def test_dumped_spec_loads_to_the_same(name: str, small: Path, tmp_path: Path) -> None:
    spec = load_spec(str(small) if name == "small" else name)
    again = tmp_path / "again.yaml"
    again.write_text(dump_spec(spec), encoding="utf-8")
    assert load_spec(str(again)) == spec


texts = st.one_of(
    # PyYAML takes control characters for line breaks, even those that it wrote itself.
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20),
    st.sampled_from(["2e-5", "1e5", "null", "yes", "0x1f", "1_000", "~", "a: b", "# no", "1:30"]),
)
radii = st.floats(0, 1) | st.just("paper")
margins = {
    "uniform": {"distribution": "uniform", "low": 1e-7, "high": 3},
    "categorical": {"distribution": "categorical", "choices": [None, 0, 0.25, 1e-5]},
}


@given(
    description=texts,
    model=texts,
    data_dir=st.none() | texts,
    radius=radii,
    rate=st.floats(1e-12, 1e3),
    margin=st.sampled_from(sorted(margins)),
)
def test_any_spec_survives_the_way_through_a_file(
    tmp_path_factory: pytest.TempPathFactory,
    description: str,
    model: str,
    data_dir: str | None,
    radius: Any,
    rate: float,
    margin: str,
) -> None:
    spec = SearchSpec.model_validate(
        {
            "name": "any",
            "description": description,
            "task": "demo",
            "model": model,
            "data_dir": data_dir,
            "method": {"view": {"radius": radius}},
            "training": {"learning_rate": rate},
            "search": {"parameters": {"method.push_margin": margins[margin]}},
        }
    )
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(dump_spec(spec), encoding="utf-8")
    assert load_spec(str(path)) == spec


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


@pytest.mark.parametrize(
    ("key", "distribution", "parts"),
    [
        ("method.push_margn", "{distribution: uniform, low: 0, high: 1}", ["'push_margin'"]),
        (
            "method.view.radius.x",
            "{distribution: uniform, low: 0, high: 1}",
            ["method.view.radius"],
        ),
        ("metod.push_margin", "{distribution: uniform, low: 0, high: 1}", ["only keys of method"]),
        ("search.seed", "{distribution: int, low: 0, high: 1}", ["only keys of method"]),
        ("method.name", "{distribution: categorical, choices: [ear]}", ["only keys of method"]),
        ("training.max_length", "{distribution: int, low: 8, high: 64}", ["training.max_length"]),
        ("method.pull_weight", "{distribution: uniform, low: -1, high: 1}", ["-1", ">= 0"]),
        ("method.view.radius", "{distribution: uniform, low: 0, high: 1.1}", ["1.1", "<= 1"]),
        ("method.pull_weight", "{distribution: uniform, low: 1, high: 1}", ["1.0", "below"]),
        ("method.pull_weight", "{distribution: uniform, low: 2, high: 1}", ["2.0", "below", "1.0"]),
        ("method.pull_layer", "{distribution: int, low: 3, high: 3}", ["3", "below"]),
        ("method.pull_layer", "{distribution: int, low: 0.5, high: 3}", ["low", "0.5"]),
        ("method.pull_weight", "{distribution: log_uniform, low: 0, high: 1}", ["low", "> 0"]),
        ("method.pull_weight", "{distribution: unifrom, low: 0, high: 1}", ["'uniform'"]),
        ("method.pull_weight", "{low: 0, high: 1}", ["distribution", "missing"]),
        ("method.pull_weight", "{distribution: uniform, low: 0}", ["high", "missing"]),
        ("method.pull_weight", "{distribution: uniform, low: 0, hi: 1}", ["'hi'", "'high'"]),
        ("method.pull_weight", "{distribution: categorical, choices: []}", ["choices", "1 item"]),
        ("method.pull_weight", "{distribution: categorical, choices: [1, -2]}", ["-2", ">= 0"]),
        ("method.push_distance", "{distribution: categorical, choices: [relativ]}", ["'relative'"]),
        ("method.push_distance", "{distribution: uniform, low: 0, high: 1}", ["push_distance"]),
        # Both ends are whole numbers, what is drawn between them is not.
        ("training.batch_size", "{distribution: uniform, low: 8, high: 64}", ["int"]),
        ("training.batch_size", "{distribution: log_uniform, low: 8, high: 64}", ["int"]),
        ("training.trim_vocabulary", "{distribution: uniform, low: 0, high: 1}", ["categorical"]),
    ],
)
def test_searched_key_or_range_that_does_not_fit(
    small: Path, key: str, distribution: str, parts: list[str]
) -> None:
    small.write_text(f"{SMALL}    {key}: {distribution}\n")
    message = complaint(small)
    for part in [str(small), "search.parameters", key.rpartition(".")[2], *parts]:
        assert part in message, message


@pytest.mark.parametrize(
    ("key", "distribution"),
    [
        ("method.view.radius", {"distribution": "categorical", "choices": ["paper", 0.5]}),
        ("method.pull_layer", {"distribution": "int", "low": 0, "high": 11}),
        ("training.batch_size", {"distribution": "int", "low": 8, "high": 64}),
        ("training.trim_vocabulary", {"distribution": "categorical", "choices": [True, False]}),
        ("method.push_weight", {"distribution": "log_uniform", "low": 0.1, "high": 10}),
        ("training.learning_rate", {"distribution": "uniform", "low": 1e-5, "high": 1e-4}),
    ],
)
def test_searched_ranges_that_fit(small: Path, key: str, distribution: dict[str, Any]) -> None:
    spec = load_spec(str(small), {f"search.parameters.{key}": distribution})
    assert spec.search.parameters[key].model_dump(mode="json") == distribution
    assert set(spec.search.parameters) == {"method.push_margin", "training.learning_rate", key}


WITH_VIEW = ("robust_weight", "view.kind", "view.radius")
PUSH = ("push_weight", "push_margin", "push_distance", "reduction")
PULL = ("pull_weight", "pull_layer", "pull_alignment", "reduction")
METHODS: dict[str, tuple[tuple[str, ...], str | None, tuple[str, ...]]] = {
    # Terms beside the classification loss; kind of the views that the name decides; values that
    # change anything where the spec's kind is `synonym`.
    "plain": ((), None, ()),
    "rs-da": (("robust",), "synonym", ("robust_weight", "view.radius")),
    "rs-rp": (("robust",), "random", ("robust_weight", "view.noise_radius")),
    "adv": (
        ("robust",),
        "adversarial",
        ("robust_weight", "view.noise_radius", "view.ascent_steps"),
    ),
    "ear": (("robust", "push", "pull"), None, (*WITH_VIEW, *PUSH, *PULL)),
    "ear-no-push": (("robust", "pull"), None, (*WITH_VIEW, *PULL)),
    "ear-no-pull": (("robust", "push"), None, (*WITH_VIEW, *PUSH)),
    "ear-no-robust": (("push", "pull"), None, (*WITH_VIEW[1:], *PUSH, *PULL)),
}
NOISE = {
    "synonym": {"view.radius"},
    "random": {"view.noise_radius"},
    "adversarial": {"view.noise_radius", "view.ascent_steps"},
}
"""Values of each kind of view."""


def method(name: str, kind: str = "synonym") -> MethodSpec:
    return MethodSpec.model_validate({"name": name, "view": {"kind": kind}})


def test_every_method_is_in_the_table() -> None:
    assert list(PRESETS) == list(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_method_s_terms_views_and_values(name: str) -> None:
    terms, own_kind, used = METHODS[name]
    everywhere = {"name", "view.synonyms"}
    keys = set(flatten(method(name).model_dump())) - everywhere
    assert keys == set().union(*(row[2] for row in METHODS.values()))
    for kind in NOISE:
        found = method(name, kind)
        assert found.terms == terms
        assert found.view_kind == (own_kind or kind if terms else None)
        expected = set(used)
        if terms and own_kind is None:
            expected = expected - NOISE["synonym"] | NOISE[kind]
        assert {key for key in keys if found.uses(key)} == expected, kind


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


def test_word_alignment_is_not_searched_beside_padding(small: Path) -> None:
    key = "search.parameters.method.pull_alignment"
    searched = {key: kinds("token", "word")}
    load_spec(str(small), searched)
    message = complaint(small, searched | {"method.reduction": "padded"})
    assert "reduction: padded" in message and "pull_alignment: token" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1", 1),
        ("a=0.5", 0.5),
        ("a=2e-5", 2e-5),
        ("a=1E5", 1e5),
        ("a=true", True),
        ("a=null", None),
        ("a=", None),
        ("a=demo", "demo"),
        ("a='2e-5'", "2e-5"),
        ("a=x=y", "x=y"),
        ("a=nan", "nan"),
        ("a=[1, 2e-5, paper]", [1, 2e-5, "paper"]),
        ("a={low: 1e-5}", {"low": 1e-5}),
        (" a =3", 3),
    ],
)
def test_override_is_typed(text: str, expected: Any) -> None:
    key, value = parse_override(text)
    assert key == "a" and value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    "text", ["a", "=3", " =3", "a=[", "a={b: 1, b: 2}", "a=!!python/name:os.x"]
)
def test_override_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_override(text)
    assert f"--set {text}" in str(caught.value) and "\n" not in str(caught.value)


def test_overrides_replace_the_file_s_values(small: Path) -> None:
    flags = ["training.max_steps=100", "method.view.radius=0.25", f"{MARGIN}.low=0.1", "model=b/c"]
    spec = load_spec(str(small), dict(map(parse_override, flags)))
    assert spec.training.max_steps == 100
    assert spec.method.view.radius == 0.25
    assert spec.model == "b/c"
    margin = spec.search.parameters["method.push_margin"]
    assert margin.model_dump() == {"distribution": "uniform", "low": 0.1, "high": 0.5}
    rate = spec.search.parameters["training.learning_rate"]
    assert rate.model_dump() == {"distribution": "log_uniform", "low": 1e-5, "high": 5e-5}


def test_override_of_all_or_a_whole_distribution(small: Path) -> None:
    assert load_spec(str(small), {"search.parameters": {}}).search.parameters == {}
    whole = parse_override(f"{MARGIN}={{distribution: int, low: 0, high: 2}}")
    spec = load_spec(str(small), dict([whole]))
    assert spec.search.parameters["method.push_margin"].model_dump() == whole[1]


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"trainin.epochs": 3}, ["'trainin'", "'training'"]),
        ({"training.epoch": 3}, ["'epoch' in training", "'epochs'"]),
        ({"training.epochs": 0}, ["training.epochs", "0", ">= 1"]),
        ({"training.epochs": "many"}, ["training.epochs", "'many'"]),
        ({"task.name": 3}, ["task.name", "'task' is a value"]),
        ({f"{MARGIN}.lo": 0.1}, ["'lo'", "push_margin", "'low'"]),
        ({"search.baseline": False}, ["'baseline' in search", "'baselines'"]),
        ({"search.baselines": ["plain", "rs-dq"]}, ["search.baselines", "'rs-dq'", "'rs-da'"]),
        ({"search.baselines": ["mixup"]}, ["search.baselines", "'mixup'", *METHODS]),
        ({"search.comparison_seeds": -1}, ["search.comparison_seeds", "-1", ">= 0"]),
        (
            {"method.reduction": "padded", "method.pull_alignment": "word"},
            ["method", "reduction: padded", "pull_alignment: token"],
        ),
        ({f"{MARGIN}.low": 0.5}, ["push_margin", "low 0.5", "below", "high 0.5"]),
        ({f"{MARGIN}.low": -1}, ["push_margin", "-1", ">= 0"]),
        ({"": 3}, ["''"]),
    ],
)
def test_override_that_does_not_fit(
    small: Path, overrides: dict[str, Any], parts: list[str]
) -> None:
    message = complaint(small, overrides)
    for part in parts:
        assert part in message, message


def test_unknown_search_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--search xnli_xlm: .*'xnli_xlmr'"):
        find_search("xnli_xlm")
    with pytest.raises(UserError, match=r"--search .*nothing\.yaml: there is no such file"):
        find_search(str(tmp_path / "nothing.yaml"))


@pytest.mark.parametrize("content", [b"", b"- a\n", b"text\n", b"a: \xff\n", b"a: \x07\n"])
def test_file_that_is_no_mapping(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_trial_s_values_change_only_themselves() -> None:
    spec = load_spec("demo")
    values = {"method.push_margin": 0.25, "method.view.radius": "paper", "training.seed": 3}
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


def test_flatten_joins_keys_with_dots() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": [2],
        "e": None,
    }


def test_shipped_files_name_no_key_twice_and_are_plain_yaml() -> None:
    for path in available_searches().values():
        assert read_yaml(path) == yaml.safe_load(path.read_text())


def test_command_line_imports_nothing_heavy() -> None:
    code = "import sys, xlt_ray.cli.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "xlt_ray.config.spec" in imported
    assert not imported & {"torch", "ray", "transformers", "mlflow", "datasets", "optuna"}


def test_a_word_in_place_of_a_list_is_told_so(small: Path) -> None:
    message = complaint(small, {"search.baselines": "plain"})
    assert "search.baselines" in message and "should be a list, not 'plain'" in message
