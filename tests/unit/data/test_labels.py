"""Which class a value means: never another one than the user meant."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from tests.support.task_files import files_task
from xlt_ray.config.task import TaskSpec
from xlt_ray.data.labels import ClassIds
from xlt_ray.data.sources import load_split
from xlt_ray.errors import UserError


def single(
    folder: Path, kind: str, labels: tuple[str, ...], values: dict[str, str] | None = None
) -> TaskSpec:
    return files_task(folder, kind).model_copy(
        update={"text_columns": ("text",), "labels": labels, "label_values": values or {}}
    )


def classes(task: TaskSpec) -> list[str]:
    return [task.labels[index] for index in load_split(task, "dev", "de").dataset()["label"]]


def class_label_file(folder: Path, names: list[str], labels: list[int | None]) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    rows = {"text": [f"text {row}" for row in range(len(labels))], "label": labels}
    datasets.Dataset.from_dict(rows, features).to_parquet(folder / "dev-de.parquet")


def test_the_names_in_a_parquet_file_decide_which_number_is_which_class(tmp_path: Path) -> None:
    class_label_file(tmp_path, ["good", "bad"], [0, 1, 1])
    assert classes(single(tmp_path, "parquet", ("bad", "good"))) == ["good", "bad", "bad"]
    assert classes(single(tmp_path, "parquet", ("good", "bad"))) == ["good", "bad", "bad"]


def test_declared_values_name_the_data_s_classes_or_numbers(tmp_path: Path) -> None:
    class_label_file(tmp_path, ["pos", "neg"], [0, 1])
    by_name = {"pos": "good", "neg": "bad"}
    assert classes(single(tmp_path, "parquet", ("bad", "good"), by_name)) == ["good", "bad"]
    by_number = {"0": "bad", "1": "good"}
    assert classes(single(tmp_path, "parquet", ("bad", "good"), by_number)) == ["bad", "good"]


def test_a_letter_of_two_code_points_is_the_same_letter(tmp_path: Path) -> None:
    composed, decomposed = "m\u00fcde", "mu\u0308de"
    for named, found in ((composed, decomposed), (decomposed, composed)):
        (tmp_path / "dev-de.csv").write_text(f"text,label\na,{found}\nb,wach\n", encoding="utf-8")
        assert classes(single(tmp_path, "csv", (named, "wach"))) == [named, "wach"]


def test_names_that_are_only_their_numbers_say_nothing(tmp_path: Path) -> None:
    class_label_file(tmp_path, ["0", "1"], [1, 0])
    assert classes(single(tmp_path, "parquet", ("different", "same"))) == ["same", "different"]


@pytest.mark.parametrize("names", [["good", "poor"], ["good", "bad", "ugly"], ["good", "Bad"]])
def test_other_names_than_the_task_s_are_one_clear_line(tmp_path: Path, names: list[str]) -> None:
    class_label_file(tmp_path, names, [0, 1])
    with pytest.raises(UserError) as error:
        load_split(single(tmp_path, "parquet", ("bad", "good")), "dev", "de")
    assert str(error.value).startswith(
        f"{tmp_path}/dev-de.parquet, column 'label': the data's classes are {', '.join(names)}, "
        "the task's labels are bad, good; "
    )


@pytest.mark.parametrize("missing", [None, -1])
def test_a_missing_class_label_is_told_by_its_row(tmp_path: Path, missing: int | None) -> None:
    class_label_file(tmp_path, ["good", "bad"], [0, missing])
    with pytest.raises(UserError, match=r"dev-de\.parquet, row 2: .*label.*missing"):
        load_split(single(tmp_path, "parquet", ("bad", "good")), "dev", "de")


# Labels, declared values, a value and the class that it means; None: it is refused.
@pytest.mark.parametrize(
    ("labels", "declared", "value", "meant"),
    [
        (("-1", "+1"), {}, 1, "+1"),
        (("+1", "-1"), {}, 1, "+1"),
        (("+1", "-1"), {}, -1, "-1"),
        (("+1", "-1"), {}, "1", "+1"),
        (("+1", "-1"), {}, "+1", "+1"),
        (("+1", "-1"), {}, -1.0, "-1"),
        (("+1", "-1"), {}, 0, None),
        (("1", "2", "3"), {}, 1, "1"),
        (("1", "2", "3"), {}, "3.0", "3"),
        (("1", "2", "3"), {}, 0, None),
        (("1", "2", "3"), {}, "+1", None),
        (("1.0", "2.0"), {}, 2, "2.0"),
        (("0.5", "1.5"), {}, 1.5, "1.5"),
        (("0.5", "1.5"), {}, 1, None),
        (("1", "+1"), {}, 1, None),
        (("1", "+1"), {}, "1", "1"),
        (("1", "1.0"), {}, 1.0, None),
        (("1", "1.0"), {}, "1.0", "1.0"),
        (("1", "+1"), {"1": "+1"}, 1, "+1"),
        (("no", "yes"), {}, 1.0, "yes"),
        (("no", "yes"), {}, "1.0", "yes"),
        (("no", "yes"), {}, "0", "no"),
        (("no", "yes"), {}, 0.5, None),
        (("no", "yes"), {}, "0.5", None),
        (("no", "yes"), {}, "+1", None),
        (("no", "yes"), {}, "01", None),
        (("no", "yes"), {}, " 1", None),
        (("no", "yes"), {}, "1e0", None),
        (("no", "yes"), {}, "", None),
        (("no", "yes"), {}, "Yes", None),
        (("no", "yes"), {}, Decimal("1.00"), "yes"),
        (("no", "yes"), {}, True, None),
        (("no", "yes"), {"true": "yes"}, True, "yes"),
        (("no", "yes"), {"true": "yes"}, False, None),
        (("False", "True"), {}, True, "True"),
        (("false", "true"), {}, False, "false"),
        (("True", "true"), {}, True, None),
        (("None", "some"), {}, None, None),
        (("None", "some"), {}, "None", "None"),
        (("nan", "inf"), {}, float("nan"), None),
        (("nan", "inf"), {}, float("inf"), None),
        (("nan", "inf"), {}, "nan", "nan"),
        (("nan", "inf"), {}, 1, "inf"),
        (("no", "yes"), {"2": "yes"}, 2.0, "yes"),
        (("no", "yes"), {"0": "yes"}, 0, "yes"),
        (("no", "yes"), {}, 10**30, None),
        (("no", "yes"), {}, [1], None),
        (("no", "yes"), {}, {"a": 1}, None),
        (("no", "yes"), {}, b"yes", None),
    ],
)
def test_a_value_means_one_class_or_is_refused(
    tmp_path: Path,
    labels: tuple[str, ...],
    declared: dict[str, str],
    value: Any,
    meant: str | None,
) -> None:
    ids = ClassIds(single(tmp_path, "jsonl", labels, declared), None, "data")
    if meant is None:
        with pytest.raises(ValueError, match="label"):
            ids.of(value)
    else:
        assert labels[ids.of(value)] == meant


def test_null_in_json_is_no_class_though_one_is_named_none(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "None"}, {"text": "b", "label": None}]
    (tmp_path / "dev-de.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=r"dev-de\.jsonl, line 2: the label is missing"):
        load_split(single(tmp_path, "jsonl", ("None", "some")), "dev", "de")


def test_equal_values_of_different_types_are_not_mixed_up(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": value} for value in (1, True, 1.0, "1")]
    (tmp_path / "dev-de.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = single(tmp_path, "jsonl", ("no", "yes"), {"true": "no"})
    assert classes(task) == ["yes", "no", "yes", "yes"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_that_pandas_turned_into_floats(tmp_path: Path, kind: str) -> None:
    # An integer column that once had a gap is one of floats.
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": [1, None, 0]}).dropna()
    path = tmp_path / f"dev-de.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
        assert "1.0" in path.read_text()
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    assert classes(single(tmp_path, kind, ("no", "yes"))) == ["yes", "no"]
