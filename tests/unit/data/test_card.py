"""The class names in a data set's card, as `datasets` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import ClassLabel, Features, Value

from xlt_ray.config.task import TaskSpec, load_task
from xlt_ray.data.card import card_classes
from xlt_ray.data.labelled import read_examples
from xlt_ray.errors import UserError


def info(config: str, *names: str) -> dict[str, Any]:
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(names))})
    return {"config_name": config, "features": features._to_yaml_list()}


def hub_file(folder: Path, infos: Any) -> Path:
    """A data file in a folder like the hub's cache."""
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'dataset_info': infos})}---\n\nA\n")
    path = folder / "de" / "dev.csv"
    path.parent.mkdir()
    path.write_text("text,label\none,0\ntwo,1\nthree,bad\n")
    return path


def task(**changes: Any) -> TaskSpec:
    tree = load_task("demo").model_dump() | {
        "target_languages": ["de"],
        "labels": ["bad", "good"],
        "data": {"hub": {"path": "some/set"}},
    }
    return TaskSpec.model_validate(tree | changes)


def test_the_card_s_names_decide_which_number_is_which_class(tmp_path: Path) -> None:
    path = hub_file(tmp_path, [info("en", "good", "bad"), info("de", "good", "bad")])
    assert card_classes(path, task()) == ("good", "bad")
    assert read_examples(task(), [path]).labels == [1, 0, 0]


def test_a_card_of_one_configuration_is_no_list(tmp_path: Path) -> None:
    described = {key: value for key, value in info("", "good", "bad").items() if key == "features"}
    assert card_classes(hub_file(tmp_path, described), task()) == ("good", "bad")


def test_other_configurations_and_columns_do_not_count(tmp_path: Path) -> None:
    path = hub_file(tmp_path, [info("fr", "x", "y"), info("de", "good", "bad")])
    assert card_classes(path, task()) == ("good", "bad")
    assert card_classes(path, task(label_column="other")) is None


def test_configurations_that_differ_are_refused(tmp_path: Path) -> None:
    path = hub_file(tmp_path, [info("en", "bad", "good"), info("de", "good", "bad")])
    with pytest.raises(UserError, match="'some/set': its card names the classes of 'label' differ"):
        card_classes(path, task())


def test_a_card_without_names_says_nothing(tmp_path: Path) -> None:
    path = hub_file(tmp_path, [{"config_name": "de", "features": [{"name": "label"}]}])
    assert card_classes(path, task()) is None
    assert read_examples(task(), [path]).labels == [0, 1, 0]
