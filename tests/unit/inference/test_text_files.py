"""Files of texts: what is written is read back, and mistakes name file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlt_ray.errors import UserError
from xlt_ray.inference.text_files import TextFile, check_place, require, row_writer


def rows_of(file: TextFile) -> list[dict[str, object]]:
    return [row for _, row in file.rows(lambda position: None)]


@given(
    texts=st.lists(
        st.tuples(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))),
        min_size=1,
    ),
    ending=st.sampled_from([".csv", ".jsonl", ".CSV", ".ndjson", ".csv.gz", ".JSONL.GZ"]),
)
def test_rows_are_read_as_they_were_written(
    texts: list[tuple[str, str]], ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The CSV reader of Python refuses NUL, and reads every kind of line break as written.
    texts = [(a.replace("\0", ""), b.replace("\0", "")) for a, b in texts]
    path = tmp_path_factory.mktemp("texts") / f"texts{ending}"
    rows = [{"a": first, "b": second} for first, second in texts]
    with row_writer(path) as write:
        for row in rows:
            write(row)
    assert rows_of(TextFile(path)) == rows


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    path = tmp_path / "texts.tsv"
    path.write_bytes('\ufefftext\tlabel\r\n"a" b\tyes\r\n'.encode())
    assert list(TextFile(path).rows(lambda position: None)) == [
        (f"{path}, line 2", {"text": '"a" b', "label": "yes"})
    ]


def test_compressed_rows_are_gzip_and_progress_is_of_the_file(tmp_path: Path) -> None:
    path, seen = tmp_path / "texts.tsv.gz", list[int]()
    with row_writer(path) as write:
        write({"a": "é", "b": "1"})
    assert gzip.decompress(path.read_bytes()).decode() == "a\tb\né\t1\n"
    assert [row for _, row in TextFile(path).rows(seen.append)] == [{"a": "é", "b": "1"}]
    assert 0 < seen[-1] <= path.stat().st_size
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"texts\.tsv\.gz: not a readable gzip file"):
        rows_of(TextFile(path))


def test_blank_lines_at_the_end_are_no_rows_but_empty_texts_are(tmp_path: Path) -> None:
    path = tmp_path / "texts.tsv"
    path.write_text("a\tb\nx\ty\n\n\n")
    assert rows_of(TextFile(path)) == [{"a": "x", "b": "y"}]
    path.write_text("a\tb\n\nx\ty\n")
    with pytest.raises(UserError, match="line 2: expected 2 columns"):
        rows_of(TextFile(path))
    path.write_text("a\nx\n\n")
    assert rows_of(TextFile(path)) == [{"a": "x"}, {"a": ""}]


def test_a_blank_line_of_csv_is_an_empty_text_too(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("text\na\n\nb\n")
    assert list(TextFile(path).rows(lambda position: None)) == [
        (f"{path}, line 2", {"text": "a"}),
        (f"{path}, line 3", {"text": ""}),
        (f"{path}, line 4", {"text": "b"}),
    ]
    path.write_text("a,b\nx,y\n\n\n")
    assert rows_of(TextFile(path)) == [{"a": "x", "b": "y"}]
    path.write_text("a,b\n\nx,y\n")
    with pytest.raises(UserError, match="line 2: expected 2 columns"):
        rows_of(TextFile(path))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_csv_lines_end_as_any_system_ends_them(tmp_path: Path, end: str) -> None:
    path = tmp_path / "texts.csv"
    path.write_bytes(end.join(["a,b", "x,y", '"1\r2",z', ""]).encode())
    assert rows_of(TextFile(path)) == [{"a": "x", "b": "y"}, {"a": "1\r2", "b": "z"}]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"text\rone\rtwo\r", "its lines end in CR alone"),
        ("text\none\n".encode("utf-16-le"), "looks like UTF-16; save it as UTF-8"),
    ],
)
def test_a_tsv_file_that_is_no_text_of_lines_is_told(
    tmp_path: Path, content: bytes, told: str
) -> None:
    path = tmp_path / "texts.tsv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told):
        rows_of(TextFile(path))


def test_a_line_of_json_keeps_what_stands_in_it(tmp_path: Path) -> None:
    source, copy = tmp_path / "texts.jsonl", tmp_path / "copy.jsonl"
    line = '{"n": 12345678901234567890.123, "m": [1e400, -0, 1.50],  "a": "\\u00e9"}'
    source.write_text(f"\ufeff{line} \n{{}}\n", encoding="utf-8")
    with row_writer(copy) as write:
        (_, row), _ = TextFile(source).rows(lambda position: None)
        write(row, {"predicted": "é"})
        write(row)
    first, second = copy.read_text(encoding="utf-8").splitlines()
    assert first == line.removesuffix("}") + ', "predicted": "é"}'
    assert json.loads(second) == {"n": 12345678901234567000.0, "m": [None, 0, 1.5], "a": "é"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"a": ' + "9" * 5_000 + "}", "integer string conversion"),
        ('{"a": "1", "a": "2"}', "key 'a' is given twice"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deep"),
    ],
)
def test_json_that_cannot_be_read_is_one_line(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(line)
    with pytest.raises(UserError, match=f"line 1: not valid JSON .*{told}"):
        rows_of(TextFile(path))


def test_the_output_has_the_format_of_the_input(tmp_path: Path) -> None:
    path = tmp_path / "texts.JSONL"
    path.write_text("")
    for name in ("out.jsonl", "out.ndjson", "out.jsonl.gz"):
        TextFile(path).check_output(tmp_path / name)
    with pytest.raises(UserError, match=r"it must end in \.jsonl"):
        TextFile(path).check_output(tmp_path / "out.csv.gz")


def test_columns_of_a_file_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text('"a, b",c\n')
    assert rows_of(TextFile(path, ["one", "two"])) == [{"one": "a, b", "two": "c"}]


def test_a_failed_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")
    with pytest.raises(RuntimeError), row_writer(path) as write:
        write({"a": 1})
        raise RuntimeError
    assert path.read_text() == "old\n"
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_number_that_json_lacks_becomes_null(tmp_path: Path) -> None:
    """Python reads `NaN` in a line of the input, and other readers of JSON do not."""
    path = tmp_path / "out.jsonl"
    with row_writer(path) as write:
        write({"text": "a", "score": float("nan"), "nested": [float("inf"), 1.5]})
    assert path.read_text() == '{"text": "a", "score": null, "nested": [null, 1.5]}\n'
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a", "score": NaN}\n')
    with row_writer(path) as write:
        for row in rows_of(TextFile(source)):
            write(row, {"predicted": "good"})
    assert path.read_text() == '{"text": "a", "score": null, "predicted": "good"}\n'


def test_a_lone_surrogate_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with row_writer(path) as write:
        write({"a": "\ud800", "b": "é"})
        write({"a": "é"})
    first, second = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(first) == {"a": "\ud800", "b": "é"} and "\\ud800" in first
    assert second == '{"a": "é"}'


@pytest.mark.parametrize(
    ("row", "message"),
    [({"txt": "a"}, "no column 'text' (did you mean 'txt'?)"), ({"text": 1}, "is not a text")],
)
def test_a_row_without_the_text_is_refused(row: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as raised:
        require("a.jsonl, line 3", ["text"], row)
    assert str(raised.value).startswith("a.jsonl, line 3: ") and message in str(raised.value)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    check_place(tmp_path / "new.json")
    with pytest.raises(UserError, match="it is a folder"):
        check_place(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        check_place(tmp_path / "nowhere" / "new.json")
    assert list(tmp_path.iterdir()) == []
