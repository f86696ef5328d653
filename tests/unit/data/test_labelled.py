"""Class ids and text columns of labelled texts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.task_files import files_task, xtreme
from xlt_ray.data.sources import load_split
from xlt_ray.errors import UserError


def test_labels_may_be_names_ids_or_declared_values(tmp_path: Path) -> None:
    task = xtreme(tmp_path, b"a\tb\tneutral\na\tb\t1\na\tb\tmeh\n")
    task = task.model_copy(update={"label_values": {"meh": "neutral"}})
    assert load_split(task, "dev", "de").dataset()["label"][:] == [1, 1, 1]
    (tmp_path / "dev-de.jsonl").write_text(
        json.dumps({"premise": "a", "hypothesis": "b", "label": 2}) + "\n"
    )
    assert load_split(files_task(tmp_path, "jsonl"), "dev", "de").dataset()["label"][:] == [2]


def test_declared_values_come_before_ids(tmp_path: Path) -> None:
    task = xtreme(tmp_path, b"a\tb\t0\n")
    task = task.model_copy(update={"label_values": {"0": "contradiction"}})
    assert load_split(task, "dev", "de").dataset()["label"][:] == [2]


def test_numbers_as_class_names_are_names_and_not_ids(tmp_path: Path) -> None:
    task = xtreme(tmp_path, b"a\tb\t1\n").model_copy(update={"labels": ("1", "2", "3")})
    assert load_split(task, "dev", "de").dataset()["label"][:] == [0]
    (tmp_path / "dev-de.tsv").write_bytes(b"a\tb\t0\n")
    with pytest.raises(UserError, match="unknown label '0'"):
        load_split(task, "dev", "de")


def test_single_texts_have_no_second_column(tmp_path: Path) -> None:
    (tmp_path / "dev-de.csv").write_text("text,label\nhallo,neutral\n")
    task = files_task(tmp_path, "csv").model_copy(update={"text_columns": ("text",)})
    split = load_split(task, "dev", "de").dataset()
    assert split.column_names == ["text_a", "label"] and split[0]["text_a"] == "hallo"


# Every format and every way to write labels: the same classes, or an error, never others.

TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\t\n\r\0\ufeff"), min_size=1, max_size=12
).filter(lambda text: not text.isspace())
NAMES = st.one_of(
    TEXTS,
    st.sampled_from(["None", "nan", "true", "False", "yes", "no", "NA", "-", '"', "a, b", "'"]),
    st.sampled_from(["0", "1", "-1", "+1", "1.0", "01", "2", "1e0", "²", "١"]),
)


def named_file(path: Path, rows: list[tuple[str, Any]]) -> None:
    """Write rows as each format's own library does."""
    frame = pd.DataFrame({"text": [text for text, _ in rows], "label": [one for _, one in rows]})
    kind = path.suffix
    if kind == ".tsv":
        lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in rows)]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
    elif kind == ".csv":
        frame.to_csv(path, index=False)
    elif kind == ".jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        frame.to_parquet(path)


@settings(deadline=None, max_examples=60)
@given(
    labels=st.lists(NAMES, min_size=2, max_size=5, unique=True),
    texts=st.lists(TEXTS, min_size=1, max_size=6),
    kind=st.sampled_from(["tsv", "csv", "jsonl", "parquet"]),
    written=st.sampled_from(["names", "ids", "floats", "class label"]),
    data=st.data(),
)
def test_what_is_written_is_read_or_refused(
    labels: list[str],
    texts: list[str],
    kind: str,
    written: str,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    drawn = st.lists(st.sampled_from(range(len(labels))), min_size=len(texts), max_size=len(texts))
    meant = data.draw(drawn)
    order = labels
    if written == "class label":
        kind, order = "parquet", data.draw(st.permutations(labels))
        features = Features({"text": Value("string"), "label": ClassLabel(names=list(order))})
        numbers = [order.index(labels[index]) for index in meant]
        table = Dataset.from_dict({"text": texts, "label": numbers}, features)
        table.to_parquet(folder / "dev-de.parquet")
    else:
        to_value = {"names": labels.__getitem__, "ids": int, "floats": float}[written]
        rows = [(text, to_value(index)) for text, index in zip(texts, meant, strict=True)]
        named_file(folder / f"dev-de.{kind}", rows)
    task = files_task(folder, kind).model_copy(
        update={"text_columns": ("text",), "labels": tuple(labels)}
    )
    numeric = any(re.fullmatch(r"[+-]?\d+(\.\d+)?(e\d+)?", name) for name in labels)
    try:
        found = load_split(task, "dev", "de").dataset()
    except UserError:
        # A number may be an id or the name of a class.
        assert written in ("ids", "floats") and numeric
        return
    assert found["text_a"][:] == texts
    if written in ("names", "class label") or not numeric:
        assert found["label"][:] == meant
    else:
        # What a number means then is the name with its value.
        assert [float(labels[index]) for index in found["label"]] == list(map(float, meant))


@pytest.mark.parametrize(
    ("kind", "content", "classes"),
    [
        ("csv", 'text,label\n"a\n\nb",yes\n', ["yes"]),
        ("csv", 'text,label\r\n"a ""b""",yes\r\n', ["yes"]),
        ("csv", 'label,text\nyes,"a,b"\n', ["yes"]),
        ("csv", '"text","label"\na,no', ["no"]),
        ("csv", "\ufefftext,label\na,no\n", ["no"]),
        ("csv", "text,label\na,1.0\nb,0.0\n\n", ["yes", "no"]),
        ("csv", "text,label,note,note\na,yes,1,2\n", ["yes"]),
        ("csv", "text,label\r\na,yes\r\n\r\n", ["yes"]),
        ("csv", 'text,label\n"a",0\n"b","1"\n', ["no", "yes"]),
        ("tsv", 'text\tlabel\n"a\tyes\n', ["yes"]),
        ("tsv", "text\tlabel\na\u2028b\tyes\n", ["yes"]),
        ("tsv", "text\tlabel\na\x0bb\x0c\tno\n", ["no"]),
        ("tsv", "text\tlabel\r\na\tyes\r\n\r\n", ["yes"]),
        ("tsv", "label\ttext\tid\nno\ta, b\t7\n", ["no"]),
        ("tsv", "text\tlabel\n a \tyes\n", ["yes"]),
        ("jsonl", '{"text": "a", "label": "yes", "more": {"text": 1}}', ["yes"]),
        ("jsonl", '{"label": 1, "text": "a"}\n\n{"text": "b", "label": 0}\n', ["yes", "no"]),
        ("jsonl", ' {"text": "a", "label": 1.0} \r\n', ["yes"]),
        ("jsonl", '{"text": "\\ud83d\\ude00", "label": 0}\n', ["no"]),
        ("jsonl", '{"text": "a\\u0000b", "label": 0}\n', ["no"]),
        ("jsonl", '{"text": "a\u2028", "label": "no", "x": NaN}\n', ["no"]),
        ("jsonl", '{"text": "a", "label": 1e0}\n', ["yes"]),
        ("jsonl", '\ufeff{"text": "a", "label": "1"}\n', ["yes"]),
        ("json", '{"text": "a", "label": "yes"}\n', ["yes"]),
        ("ndjson", '{"text": "a", "label": true, "label2": null}\n', ["yes"]),
        ("ndjson", '{"text": "a", "label": false}\n', ["no"]),
    ],
)
def test_odd_files_that_are_legitimate(
    tmp_path: Path, kind: str, content: str, classes: list[str]
) -> None:
    (tmp_path / f"dev-de.{kind}").write_bytes(content.encode())
    task = files_task(tmp_path, kind).model_copy(
        update={
            "text_columns": ("text",),
            "labels": ("no", "yes"),
            "label_values": {"true": "yes", "false": "no"},
        }
    )
    split = load_split(task, "dev", "de").dataset()
    assert [task.labels[index] for index in split["label"]] == classes
