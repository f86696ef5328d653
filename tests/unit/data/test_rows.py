"""Every file format gives the same rows; every mistake names its file and line."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from tests.support.task_files import LABELS, ROWS, files_task, mistake, triples, xtreme
from xlt_ray.data.rows import read_rows
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
        ("dev-de.csv", "", "the file is empty; its first line must name the columns"),
        ("dev-de.csv", "\npremise,hypothesis,label\n", "the first line is blank"),
        ("dev-de.tsv", "\n", "the first line is blank"),
        ("dev-de.tsv", "p\0r\0e\0\t\0l\0", "the file looks like UTF-16; save it as UTF-8"),
        ("dev-de.tsv", "a\rb\rc", "its lines end in CR alone"),
        ("dev-de.csv", "premise,text,label\n", "no column 'hypothesis'; columns found: premise, t"),
        ("dev-de.csv", 'premise,hypothesis,label\n"a,b,neutral\n', "not valid CSV"),
        ("dev-de.jsonl", '{"premise": "a", "label": 0}\n', "line 1: no column 'hypothesis'"),
        ("dev-de.jsonl", '{"premise": \n', "line 1: not valid JSON"),
        ("dev-de.jsonl", "[1]\n", "hypothesis, label; write one object per line"),
        (
            "dev-de.jsonl",
            '{\n  "premise": "a"\n}\n',
            "line 1: not valid JSON (the line ends before",
        ),
        ("dev-de.jsonl", '[\n{"premise": "a"}]\n', "write one object per line"),
        ("dev-de.jsonl", "{premise: 1}\n", "line 1: not valid JSON (Expecting property name"),
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


@pytest.mark.parametrize("kind", ["tsv", "csv"])
@pytest.mark.parametrize("end", ["   \n", "\x1a", "\n \n\x1a\n"])
def test_spaces_and_the_end_of_a_dos_file_are_no_row(tmp_path: Path, kind: str, end: str) -> None:
    rows = ["premise,hypothesis,label", "one,two,neutral", ""]
    text = "\n".join(rows).replace(",", "," if kind == "csv" else "\t")
    (tmp_path / f"dev-de.{kind}").write_text(text + end)
    assert triples(files_task(tmp_path, kind)) == [("one", "two", "neutral")]


def test_a_blank_line_of_two_columns_has_nothing_to_do_with_xtreme(tmp_path: Path) -> None:
    task = files_task(tmp_path, "csv").model_copy(update={"text_columns": ("premise",)})
    (tmp_path / "dev-de.csv").write_text("premise,label\n   \na,neutral\n")
    with pytest.raises(UserError, match=r"line 2: expected 2 columns .*, found 1$"):
        load_split(task, "dev", "de")


def pair_table(texts: pa.Array) -> pa.Table:
    labels = pa.array(["neutral"] * len(texts))
    return pa.table({"premise": texts, "hypothesis": texts, "label": labels})


def test_a_damaged_parquet_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "dev-de.parquet"
    parquet.write_table(pair_table(pa.array([f"text {n}" for n in range(500)])), path)
    content = path.read_bytes()
    for start in (4, 60, len(content) // 2, len(content) - 200):
        path.write_bytes(content[:start] + b"\xa5" * 40 + content[start + 40 :])
        with pytest.raises(UserError, match=r"dev-de\.parquet") as raised:
            load_split(files_task(tmp_path, "parquet"), "dev", "de")
        assert "\n" not in str(raised.value)


def test_a_text_of_parquet_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "dev-de.parquet"
    parquet.write_table(pair_table(pa.array([b"Stra\xdfe"]).view(pa.string())), path)
    with pytest.raises(UserError, match=r"dev-de\.parquet: a text in it is not UTF-8"):
        load_split(files_task(tmp_path, "parquet"), "dev", "de")


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


@pytest.mark.parametrize("kind", ["tsv", "csv", "csv.gz", "jsonl", "parquet"])
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path: Path, kind: str) -> None:
    """Root may read every file, so a file stands where a folder should."""
    (tmp_path / "folder").touch()
    path = tmp_path / "folder" / f"dev-de.{kind}"
    with pytest.raises(UserError) as caught:
        read_rows(path, files_task(tmp_path, kind))
    assert str(caught.value) == f"{path}: cannot be read (Not a directory)"


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00", "a\\ud83db", "\\ude00\\ud83d"])
def test_half_a_surrogate_pair_is_refused_by_line(tmp_path: Path, half: str) -> None:
    good = '{"premise": "\\ud83d\\ude00", "hypothesis": "b", "label": 0}\n'
    (tmp_path / "dev-de.jsonl").write_text(good + good.replace("\\ud83d\\ude00", half))
    with pytest.raises(UserError, match=r"line 2: the text in column 'premise' has half a surrog"):
        load_split(files_task(tmp_path, "jsonl"), "dev", "de")
    (tmp_path / "dev-de.jsonl").write_text(good)
    assert triples(files_task(tmp_path, "jsonl")) == [("\U0001f600", "b", "entailment")]


def test_a_cell_of_a_csv_file_may_be_long(tmp_path: Path) -> None:
    long = "word " * 50_000 + "end"
    (tmp_path / "dev-de.csv").write_text(f"premise,hypothesis,label\n{long},b,neutral\n")
    assert triples(files_task(tmp_path, "csv")) == [(long, "b", "neutral")]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deep"),
        ("9" * 5_000, "integer string conversion"),
        ('0, "label": 1', "key 'label' is given twice"),
    ],
)
def test_json_that_cannot_be_read_is_one_line(tmp_path: Path, value: str, told: str) -> None:
    line = f'{{"premise": "a", "hypothesis": "b", "label": {value}}}'
    (tmp_path / "dev-de.jsonl").write_text("\n" + line)
    with pytest.raises(UserError) as error:
        load_split(files_task(tmp_path, "jsonl"), "dev", "de")
    assert "line 2: not valid JSON" in str(error.value) and told in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("end", ["\n", "\n\n", "\r\n\r\n", "\n\n\n\n"])
@pytest.mark.parametrize("kind", ["tsv", "csv"])
def test_blank_lines_at_the_end_are_no_rows(tmp_path: Path, kind: str, end: str) -> None:
    text = "premise,hypothesis,label\na,b,neutral" + end
    text = text.replace(",", "\t") if kind == "tsv" else text
    (tmp_path / f"dev-de.{kind}").write_text(text, newline="")
    assert triples(files_task(tmp_path, kind)) == [("a", "b", "neutral")]


def test_a_blank_line_among_the_rows_of_a_csv_file_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "dev-de.csv").write_text("premise,hypothesis,label\na,b,neutral\n\na,b,neutral\n")
    with pytest.raises(UserError, match="line 3: expected 3 columns"):
        load_split(files_task(tmp_path, "csv"), "dev", "de")


@pytest.mark.parametrize("kind", ["tsv", "csv", "parquet"])
def test_a_wanted_column_given_twice_is_refused(tmp_path: Path, kind: str) -> None:
    path, header = tmp_path / f"dev-de.{kind}", ["premise", "hypothesis", "label", "label"]
    if kind == "parquet":
        columns = [pa.array(["a"]), pa.array(["b"]), pa.array([0]), pa.array([1])]
        parquet.write_table(pa.table(columns, names=header), path)
    else:
        mark = "\t" if kind == "tsv" else ","
        path.write_text(f"{mark.join(header)}\n{mark.join(['a', 'b', '0', '1'])}\n")
    with pytest.raises(UserError, match="two columns are named 'label'"):
        load_split(files_task(tmp_path, kind), "dev", "de")


@pytest.mark.parametrize(
    "kind", ["TSV", "CSV", "JSONL", "PARQUET", "ndjson", "csv.GZ", "NDJSON.gz"]
)
def test_endings_in_any_case_and_ndjson(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"dev-de.{kind}"
    frame = pd.DataFrame([("a", "b", "neutral")], columns=["premise", "hypothesis", "label"])
    if kind == "PARQUET":
        frame.to_parquet(path)
    else:
        text = frame.to_csv(index=False, sep="\t" if kind == "TSV" else ",")
        if "JSON" in kind.upper():
            text = frame.to_json(orient="records", lines=True)
        content = text.encode()
        gzipped = kind.lower().endswith(".gz")
        path.write_bytes(gzip.compress(content) if gzipped else content)
    assert triples(files_task(tmp_path, kind)) == [("a", "b", "neutral")]
