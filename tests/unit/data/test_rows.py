"""Every file format gives the same rows; every mistake names its file and line."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.task_files import LABELS, ROWS, files_task, mistake, triples, xtreme
from xlt_ray.data.sources import load_split
from xlt_ray.errors import UserError


def test_xtremes_layout_has_no_quoting(tmp_path: Path) -> None:
    assert triples(xtreme(tmp_path)) == ROWS


def test_byte_order_mark_and_carriage_returns_are_no_part_of_the_text(tmp_path: Path) -> None:
    text = "".join("\t".join(row) + "\r\n" for row in ROWS).encode("utf-8-sig")
    assert triples(xtreme(tmp_path, text)) == ROWS


def test_the_last_line_needs_no_newline(tmp_path: Path) -> None:
    text = "\n".join("\t".join(row) for row in ROWS).encode()
    assert triples(xtreme(tmp_path, text)) == ROWS


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "parquet"])
def test_every_format_with_named_columns_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    # Columns in another order and one that is not wanted.
    frame = pd.DataFrame(
        [{"label": c, "id": n, "hypothesis": b, "premise": a} for n, (a, b, c) in enumerate(ROWS)]
    )
    path = tmp_path / f"dev-de.{kind}"
    if kind == "tsv":
        frame.to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_NONE, quotechar="\x00")
    elif kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        frame.to_parquet(path)
    assert triples(files_task(tmp_path, kind)) == ROWS


def test_a_csv_cell_may_hold_a_line_break(tmp_path: Path) -> None:
    with (tmp_path / "dev-de.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("premise", "hypothesis", "label"), ("one\ntwo", "three", "neutral")]
        )
    assert triples(files_task(tmp_path, "csv")) == [("one\ntwo", "three", "neutral")]


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\t\n\r", codec="utf-8"), min_size=1),
            st.text(st.characters(exclude_characters="\t\n\r", codec="utf-8"), min_size=1),
            st.sampled_from(LABELS),
        ).filter(lambda row: not row[0].isspace() and not row[1].isspace()),
        min_size=1,
    )
)
def test_any_text_without_tab_and_line_break_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    # A leading U+FEFF of the whole file is a byte order mark, not text.
    rows = [("x" + rows[0][0], *rows[0][1:]), *rows[1:]]
    folder = tmp_path_factory.mktemp("any")
    text = "".join("\t".join(row) + "\n" for row in rows).encode()
    assert triples(xtreme(folder, text)) == rows


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"a\tb\tneutral\na\tb\n", "line 2: expected 3 columns (premise, hypothesis, label), f"),
        (b"a\tb\n", "XTREME publishes its test files without labels"),
        (b"a\tb\tc\tneutral\n", "found 4; is there a separator inside a text?"),
        (b"a\tb\tneutral\n\na\tb\tneutral\n", "line 2: expected 3 columns"),
        (b"a\tb\tneutrl\n", "line 1: unknown label 'neutrl' (did you mean 'neutral'?); valid: en"),
        (b"a\tb\t3\n", "line 1: unknown label '3' (valid: entailment, neutral, contradiction)"),
        (b"a\tb\t-1\n", "unknown label '-1', which data sets put where a label is missing"),
        (b"a\tb\tneutral\n \tb\tneutral\n", "line 2: the text in column 'premise' is empty"),
        (b"a\t\tneutral\n", "line 1: the text in column 'hypothesis' is empty"),
        (b"", "there are no rows"),
        (b"a\tb\tneutral\nStra\xdfe\tb\tneutral\n", "line 2: not UTF-8 (byte 0xdf at offset 16)"),
    ],
)
def test_a_mistake_in_a_file_is_told_by_file_and_line(
    tmp_path: Path, text: bytes, told: str
) -> None:
    message = mistake(xtreme(tmp_path, text))
    assert message.startswith(f"{tmp_path}/dev-de.tsv") and told in message


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("dev-de.csv", "premise,text,label\n", "no column 'hypothesis'; columns found: premise, t"),
        ("dev-de.csv", 'premise,hypothesis,label\n"a,b,neutral\n', "not valid CSV"),
        ("dev-de.jsonl", '{"premise": "a", "label": 0}\n', "line 1: no column 'hypothesis'"),
        ("dev-de.jsonl", '{"premise": \n', "line 1: not valid JSON"),
        ("dev-de.jsonl", "[1]\n", "line 1: expected a JSON object"),
        (
            "dev-de.jsonl",
            '\n{"premise": 5, "hypothesis": "b", "label": 0}\n',
            "line 2: the text in column 'premise' is not text",
        ),
        ("dev-de.parquet", "nonsense", "not a readable Parquet file"),
        ("dev-de.txt", "a", "cannot tell the format from the ending '.txt'"),
    ],
)
def test_mistakes_of_the_other_formats(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    task = files_task(tmp_path, name.rpartition(".")[2])
    with pytest.raises(UserError) as error:
        load_split(task, "dev", "de")
    assert str(tmp_path / name) in str(error.value) and told in str(error.value)


@pytest.mark.parametrize("kind", ["tsv.gz", "csv.gz", "jsonl.gz", "json.gz", "json"])
def test_gzip_files_and_json_lines_have_the_same_rows(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame(ROWS, columns=["premise", "hypothesis", "label"])
    if "json" in kind:
        text = frame.to_json(orient="records", lines=True, force_ascii=False)
    elif "csv" in kind:
        text = frame.to_csv(index=False)
    else:
        text = "\n".join("\t".join(row) for row in [tuple(frame.columns), *ROWS])
    content = text.encode()
    (tmp_path / f"dev-de.{kind}").write_bytes(
        gzip.compress(content, mtime=0) if kind.endswith(".gz") else content
    )
    assert triples(files_task(tmp_path, kind)) == ROWS


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"text" * 99, mtime=0)[:-9]])
def test_a_broken_gzip_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dev-de.csv.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"dev-de\.csv\.gz: not a readable gzip file"):
        load_split(files_task(tmp_path, "csv.gz"), "dev", "de")


def test_a_parquet_file_without_a_wanted_column_tells_those_it_has(tmp_path: Path) -> None:
    pd.DataFrame({"premise": ["a"], "gold": [1]}).to_parquet(tmp_path / "dev-de.parquet")
    with pytest.raises(UserError, match="no column 'hypothesis'; columns found: premise, gold"):
        load_split(files_task(tmp_path, "parquet"), "dev", "de")
