"""Loading searches: where a name is found, YAML, overrides, the way through a file and back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.small_search import MARGIN, SMALL, complaint
from xlt_ray.config.loading import (
    available_searches,
    dump_spec,
    find_search,
    load_spec,
    parse_override,
    parse_overrides,
    read_yaml,
)
from xlt_ray.config.method import PRESETS
from xlt_ray.config.spec import SearchSpec
from xlt_ray.errors import UserError


def test_shipped_searches_load() -> None:
    assert set(available_searches()) == {
        "demo", "massive_xlmr", "pawsx_mbert", "pawsx_small", "pawsx_xlmr",
        "sib200_methods", "sib200_plain", "sib200_small", "sib200_xlmr",
        "xnli_mbert", "xnli_mdeberta", "xnli_methods", "xnli_mmbert", "xnli_small", "xnli_xlmr"
    }  # fmt: skip
    for name in available_searches():
        spec = load_spec(name)
        assert spec.name == name and spec.description


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
        ("a=-3", -3),
        ("a=0", 0),
        ("a=1.5e3", 1500.0),
        # In YAML 1.1 these are 14, 90, 90.5, 31 and 1000.
        ("a=016", "016"),
        ("a=1:30", "1:30"),
        ("a=1:30.5", "1:30.5"),
        ("a=0x1f", "0x1f"),
        ("a=1_000", "1_000"),
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
        ({"search.baselines": ["mixup"]}, ["search.baselines", "'mixup'", *PRESETS]),
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


def test_a_key_may_replace_a_merged_one_but_no_other(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text("base: &base {x: 1, y: 2}\nown: {<<: *base, x: 3}\n")
    assert read_yaml(path)["own"] == {"x": 3, "y": 2}
    path.write_text("base: &base {x: 1, y: 2}\nown: {<<: *base, x: 3, x: 4}\n")
    with pytest.raises(UserError, match="key 'x' is given twice"):
        read_yaml(path)


def test_shipped_files_name_no_key_twice_and_are_plain_yaml() -> None:
    for path in available_searches().values():
        assert read_yaml(path) == yaml.safe_load(path.read_text())


def test_a_word_in_place_of_a_list_is_told_so(small: Path) -> None:
    message = complaint(small, {"search.baselines": "plain"})
    assert "search.baselines" in message and "should be a list, not 'plain'" in message


def test_an_override_of_an_earlier_override_is_an_error() -> None:
    flags = ["method.view.radius=0.5", "method.view={kind: random}"]
    assert parse_overrides(flags[:1]) == {"method.view.radius": 0.5}
    with pytest.raises(UserError, match=r"--set method\.view: .*method\.view\.radius"):
        parse_overrides(flags)


def test_the_working_folder_s_searches_come_before_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = available_searches()
    assert "demo" in shipped
    own = tmp_path / "search_spaces"
    own.mkdir()
    for name in ("demo", "mine"):
        (own / f"{name}.yaml").write_text(SMALL)
    assert available_searches() == shipped | {n: own / f"{n}.yaml" for n in ("demo", "mine")}
    assert find_search("demo") == own / "demo.yaml"
    assert find_search("xnli_xlmr") == shipped["xnli_xlmr"]
    assert load_spec("mine").name == "mine"


def test_a_wheel_has_the_searches(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    source = tmp_path / "source"
    skipped = shutil.ignore_patterns("__pycache__", "*.tsv")
    shutil.copytree(root / "xlt_ray", source / "xlt_ray", symlinks=True, ignore=skipped)
    shutil.copytree(root / "search_spaces", source / "search_spaces")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('..'))"
    subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    code = (
        "import xlt_ray; from xlt_ray.config.loading import available_searches, load_spec; "
        "print(xlt_ray.__file__, *map(load_spec, available_searches()), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    first, *specs = done.stdout.splitlines()
    assert first.startswith(str(installed))
    assert len(specs) == len(list((root / "search_spaces").glob("*.yaml"))) > 0
