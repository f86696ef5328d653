"""Tasks: the packaged ones, and what a mistake in a task's YAML is answered with."""

from __future__ import annotations

import copy
import datetime
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from xlt_ray.config.loading import load_spec
from xlt_ray.config.task import (
    TaskSpec,
    available_tasks,
    load_task,
    task_of,
    with_data_dir,
    with_targets,
)
from xlt_ray.errors import UserError

PAIRS: dict[str, Any] = {
    "name": "pairs",
    "target_languages": ["de", "zh"],
    "text_columns": ["first", "second"],
    "label_column": "label",
    "labels": ["no", "yes"],
    "data": {
        "files": {
            "train": "train-{language}.tsv",
            "dev": "{language}/dev.tsv",
            "test": "/elsewhere/test-{language}.tsv",
            "header": False,
            "columns": ["first", "second", "label"],
        }
    },
}


def write(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write the task above with some dotted keys replaced; None removes a key."""
    tree = copy.deepcopy(PAIRS)
    for key, value in (changes or {}).items():
        *sections, name = key.split(".")
        below = tree
        for section in sections:
            below = below[section]
        if value is None:
            del below[name]
        else:
            below[name] = value
    path = folder / "pairs.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def test_packaged_tasks_are_the_documented_ones() -> None:
    assert set(available_tasks()) == {"demo", "massive", "pawsx", "sib200", "xnli"}


def test_xnli_has_the_fifteen_languages_and_three_classes_of_the_paper() -> None:
    task = load_task("xnli")
    assert " ".join(sorted(task.languages)) == "ar bg de el en es fr hi ru sw th tr ur vi zh"
    assert task.languages[0] == task.source_language == "en"
    assert task.labels == ("entailment", "neutral", "contradiction")
    assert task.data.hub is not None and task.data.hub.path == "facebook/xnli"


def test_pawsx_has_the_seven_languages_of_the_paper() -> None:
    task = load_task("pawsx")
    assert " ".join(sorted(task.languages)) == "de en es fr ja ko zh"
    assert task.text_columns == ("sentence1", "sentence2")
    assert len(task.labels) == 2


def test_sib200_has_short_codes_and_the_data_sets_own() -> None:
    task = load_task("sib200")
    hub = task.data.hub
    assert hub is not None and len(task.languages) == 31 and not task.is_pair
    assert len(task.labels) == 7 and task.labels[0] == "science/technology"
    assert {hub.config_of(code)[-5:] for code in task.languages} >= {"_Latn", "_Hans"}
    assert all(re.fullmatch("[a-z]{3}_[A-Z][a-z]{3}", name) for name in hub.languages.values())
    assert len(set(hub.languages.values())) == len(hub.languages)
    assert hub.config_of("sw") == "swh_Latn" and hub.config_of("ace_Arab") == "ace_Arab"


def test_massive_has_51_languages_and_60_intents() -> None:
    task = load_task("massive")
    assert len(task.languages) == 51 and len(task.labels) == 60
    assert task.data.hub is not None and task.data.hub.config_of("zh-TW") == "zh-TW"


def test_other_targets_replace_the_tasks() -> None:
    task = with_targets(load_task("sib200"), ["sw", "ace_Arab"], "--languages")
    assert task.languages == ("en", "sw", "ace_Arab")
    for codes, told in {
        ("de", "en"): "'en' is given twice",
        ("de", "de"): "'de' is given twice",
        ("de", "deu_Latn"): "'de' and 'deu_Latn' are both the configuration 'deu_Latn'",
        ("eng_Latn",): "'en' and 'eng_Latn' are both the configuration 'eng_Latn'",
        ("de/at",): "'de/at' is no code of a language",
        ("",): "'' is no code of a language",
    }.items():
        with pytest.raises(UserError) as error:
            with_targets(load_task("sib200"), codes, "--languages")
        assert str(error.value).startswith("--languages: ") and told in str(error.value)
        assert "\n" not in str(error.value)


def test_a_search_names_its_targets_and_its_data(tmp_path: Path) -> None:
    spec = load_spec("sib200_small")
    assert task_of(spec) == load_task("sib200")
    spec = spec.model_copy(update={"target_languages": ("yo",), "data_dir": str(tmp_path)})
    task = task_of(spec)
    assert task.target_languages == ("yo",)
    assert task.data.files is not None and task.data.files.columns == ("text", "category")


def test_relative_paths_start_at_the_yaml(tmp_path: Path) -> None:
    files = load_task(write(tmp_path)).data.files
    assert files is not None
    assert files.train == str(tmp_path / "train-{language}.tsv")
    assert files.dev == str(tmp_path / "{language}" / "dev.tsv")
    assert files.test == "/elsewhere/test-{language}.tsv"


def test_the_home_folder_may_be_written_as_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, {"data.files.train": "~/train-{language}.tsv"})
    task = load_task("~/pairs.yaml")
    assert task.data.files is not None
    assert task.data.files.train == str(tmp_path / "train-{language}.tsv")
    files = with_data_dir(task, Path("~")).data.files
    assert files is not None and files.dev == str(tmp_path / "dev-{language}.tsv")


def test_labels_that_yaml_would_count_in_eights_stay_as_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path)
    text = path.read_text(encoding="utf-8").replace("- 'no'", "- 010").replace("- 'yes'", "- 011")
    path.write_text(f"{text}label_values: {{012: 010}}\n", encoding="utf-8")
    task = load_task(path)
    assert task.labels == ("010", "011") and task.label_values == {"012": "010"}


def test_a_task_is_frozen_and_knows_whether_it_is_a_pair(tmp_path: Path) -> None:
    pair = load_task(write(tmp_path))
    assert pair.is_pair and pair.languages == ("en", "de", "zh")
    with pytest.raises(ValueError, match="frozen"):
        pair.name = "other"
    single = load_task(write(tmp_path, {"text_columns": ["first"]}))
    assert not single.is_pair


def test_every_field_says_what_it_means() -> None:
    undescribed = [name for name, field in TaskSpec.model_fields.items() if not field.description]
    assert undescribed == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"label": ["a"]}, "unknown key 'label' (did you mean 'labels'?)"),
        ({"data.files.heading": True}, "unknown key 'heading' in data.files"),
        ({"data.files.format": "tvs"}, "data.files.format: 'tvs' is not valid"),
        ({"data.files.format": "tvs"}, "(did you mean 'tsv'?)"),
        ({"labels": None}, "the key 'labels' is missing"),
        ({"labels": ["yes", "yes"]}, "labels: 'yes' is given twice"),
        ({"labels": ["yes"]}, "labels: "),
        ({"target_languages": ["de", "en"]}, "'en' is given twice"),
        ({"data.files.dev": "dev.tsv"}, "data.files.dev: 'dev.tsv' needs {language} in it"),
        ({"data.files.header": True}, "give 'columns' together with 'header: false'"),
        ({"data.files.columns": ["first", "secnd", "label"]}, "(did you mean 'secnd'?)"),
        ({"data.hub": {"path": "some/where"}}, "exactly one of 'hub' and 'files'"),
        ({"label_values": {0: "nope"}}, "label_values.0: no class 'nope'"),
        ({"text_columns": ["a", "b", "c"]}, "text_columns: "),
        ({"name": "a/b"}, "name: "),
        ({"target_languages": []}, "target_languages: there is none; give at least one"),
        ({"target_languages": ["de", "en_virtual"]}, "'en_virtual' is the name of a measure"),
        ({"target_languages": ["en_and_virtual"]}, "'en_and_virtual' is the name of a measure"),
        ({"target_languages": ["zero_shot_mean"]}, "'zero_shot_mean' is the name of a measure"),
        ({"target_languages": ["mean"]}, "'mean' is the name of a measure"),
        ({"target_languages": ["de", False]}, "target_languages[1]: YAML reads no, off and false"),
        ({"target_languages": [False]}, "write 'no' in quotes"),
        ({"source_language": False}, "source_language: YAML reads no, off and false"),
        ({"labels": [False, True]}, "labels[0]: YAML reads no, off and false without quotes"),
        ({"labels": ["no", True]}, "labels[1]: YAML reads yes, on and true without quotes"),
        ({"labels": [0, 1]}, "labels[0]: YAML reads 0 without quotes not as text; write '0' in q"),
        ({"labels": [0.5, "1"]}, "write '0.5' in quotes"),
        ({"labels": ["a", None]}, "labels[1]: YAML reads null without quotes not as text"),
        ({"labels": ["a", datetime.date(2026, 1, 2)]}, "write '2026-01-02' in quotes"),
        ({"label_column": 0}, "label_column: YAML reads 0 without quotes"),
        ({"text_columns": [1]}, "text_columns[0]: YAML reads 1 without quotes"),
        ({"label_values": {"x": False}}, "write 'no' in quotes"),
        ({"label_values": {True: "yes"}}, "write 'yes' in quotes"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    path = write(tmp_path, changes)
    with pytest.raises(UserError) as error:
        load_task(path)
    assert str(error.value).startswith(f"{path}: ")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"task 'xlni': no such task \(did you mean 'xnli'\?\)"):
        load_task("xlni")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.yaml: there is no such file"):
        load_task(tmp_path / "absent.yaml")


def test_data_dir_replaces_the_source_by_xtremes_layout(tmp_path: Path) -> None:
    task = with_data_dir(load_task("xnli"), tmp_path)
    files = task.data.files
    assert task.data.hub is None and files is not None
    assert files.test == f"{tmp_path}/test-{{language}}.tsv"
    assert files.columns == ("premise", "hypothesis", "label") and not files.header
    assert task.labels == load_task("xnli").labels
    with pytest.raises(UserError, match=r"--data-dir .*nowhere: there is no such folder"):
        with_data_dir(task, tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"--data-dir .*: cannot be read \(File name too long\)"):
        with_data_dir(task, tmp_path / ("x" * 300))
