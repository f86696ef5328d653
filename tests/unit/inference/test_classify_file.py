"""Classifying the rows of a file: order, columns, progress, and files with mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.fine_tuned import LABELS, one_by_one
from tests.support.tiny_encoder import DEFAULT_TEXTS
from xlt_ray.errors import UserError
from xlt_ray.inference.classifier import Classifier
from xlt_ray.inference.classify_file import classify_file
from xlt_ray.inference.text_files import TextFile


def classified(folder: Path, file: Path, *given: Any) -> list[str]:
    """Classify a file and return the lines of the output."""
    output = file.with_name(f"answers{file.suffix}")
    rows = classify_file(
        Classifier.load(folder, "cpu", "fp32"),
        TextFile(file, *given[:1]),
        output,
        given[1] if given[1:] else None,
    )
    lines = output.read_text(encoding="utf-8").splitlines()
    assert rows == len(lines) - (file.suffix != ".jsonl")
    return lines


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl"])
def test_a_file_of_several_chunks_keeps_its_order(
    single: Path, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xlt_ray.inference.classify_file._CHUNK_ROWS", 4)
    texts = [text.replace("\n", " ") for text in DEFAULT_TEXTS]
    file = tmp_path / f"texts{ending}"
    if ending == ".jsonl":
        lines = [json.dumps({"n": n, "review": text}) for n, text in enumerate(texts)]
    else:
        mark = "\t" if ending == ".tsv" else ","
        quote = "" if ending == ".tsv" else '"'
        lines = [f"n{mark}review"] + [
            f"{n}{mark}{quote}{text}{quote}" for n, text in enumerate(texts)
        ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    written = classified(single, file)
    expected = one_by_one(single, texts)
    if ending == ".jsonl":
        rows = [list(json.loads(line).values()) for line in written]
    else:
        assert written[0].split(mark)[2:] == ["predicted"] + [f"probability/{c}" for c in LABELS]
        rows = [line.split(mark) for line in written[1:]]
    assert [int(row[0]) for row in rows] == list(range(len(texts)))
    assert [row[-4] for row in rows] == [LABELS[best] for best in expected.argmax(1)]
    found = np.array([[float(value) for value in row[-3:]] for row in rows])
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_columns_of_another_name_and_no_header(pair: Path, tmp_path: Path) -> None:
    file = tmp_path / "test-en.tsv"
    file.write_text("A book.\tTwo children\tneutral\n", encoding="utf-8")
    written = classified(pair, file, ["a", "b", "gold"], ["b", "a"])
    assert written[0].startswith("a\tb\tgold\tpredicted\t")
    (expected,) = one_by_one(pair, [("Two children", "A book.")])
    found = [float(value) for value in written[1].split("\t")[-3:]]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_half_a_surrogate_pair_goes_through(single: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"review": "\\ud800"}\n', encoding="utf-8")
    (line,) = classified(single, file)
    assert json.loads(line)["review"] == "\ud800"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.tsv", b"text\nhello\n", r"a\.tsv, line 2: no column 'review'"),
        ("a.tsv", b"review\tx\nhello\n", "line 2: expected 2 columns"),
        ("a.tsv", b"review\n", "there are no rows"),
        ("a.tsv", b"", "there are no rows"),
        ("a.tsv", b"review\treview\n", "the same name"),
        ("a.tsv", b"review\nhello\n\xff\n", r"line 3: not UTF-8 \(byte 0xff\)"),
        ("a.csv", b'review\n"hello', "not valid CSV"),
        ("a.csv", b"review,predicted\nx,y\n", "there is a column 'predicted' already"),
        ("a.jsonl", b"[1]\n", "line 1: expected a JSON object"),
        ("a.jsonl", b'{"review": "x"}\n{"review": 1}\n', "line 2: 'review' is not a text"),
        ("a.jsonl", b"{\n", "line 1: not valid JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1: not valid JSON"),
    ],
)
def test_mistakes_in_a_file_are_told_and_nothing_is_written(
    single: Path, tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told):
        classified(single, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_class_that_the_format_cannot_hold_is_told(single: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("review\nhello\n", encoding="utf-8")
    classifier = Classifier.load(single, "cpu", "fp32")
    classifier = replace(classifier, labels=("a\tb", *classifier.labels[1:]))
    with pytest.raises(UserError, match=r"class 'a\\tb' has a tab .* as \.csv or \.jsonl"):
        classify_file(classifier, TextFile(file), tmp_path / "out.tsv")
    assert not (tmp_path / "out.tsv").exists()
    as_csv = tmp_path / "a.csv"
    as_csv.write_text("review\nhello\n", encoding="utf-8")
    assert classify_file(classifier, TextFile(as_csv), tmp_path / "out.csv") == 1


def test_a_text_column_too_many_is_told(single: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("review\tb\nx\ty\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"the model takes 1 \(review\), not 2"):
        classified(single, file, None, ["review", "b"])


def test_progress_counts_the_bytes_of_the_file(single: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.tsv"
    file.write_text("review\n" + "a book\n" * 10, encoding="utf-8")
    seen: list[int] = []
    classifier = Classifier.load(single, "cpu", "fp32")
    assert classify_file(classifier, TextFile(file), tmp_path / "out.tsv", None, seen.append) == 10
    assert len(seen) == 10 and seen == sorted(seen) and seen[-1] == file.stat().st_size
