"""Classifying texts with an exported model, against transformers one text at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.support.tiny_encoder import DEFAULT_TEXTS, MAX_LENGTH, tiny_encoder
from xlt_ray.errors import UserError
from xlt_ray.inference.classifier import Classifier
from xlt_ray.inference.classify_file import classify_file
from xlt_ray.inference.text_files import TextFile

LABELS = ("contra", "neutral", "entails")
ODD = [
    "",
    " ",
    "\n\t\u2028",
    "\0",
    "a\ud800b",
    "\ud83d\ude00",
    "👩‍👩‍👧‍👦 \u202eabc\u200b",
    "e\u0301" * 50,
    "зеркало " * 5000,
    "x" * 20_000,
    "老人在安静的花园里看书。",
]
"""Texts that a tokenizer, or whoever feeds it, could trip over."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_model(folder: Path, family: Any, columns: list[str] | None) -> Path:
    """A fine-tuned classifier's folder, with random weights far from uniform answers."""
    tiny_encoder(folder, family)
    names = dict(enumerate(LABELS))
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=3, id2label=names, label2id={name: i for i, name in names.items()}
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            # Nor may what all texts have in common drown what each has of its own.
            shared = "position" in name or "token_type" in name
            torch.nn.init.normal_(parameter, std=0.05 if shared else 0.3)
    model.save_pretrained(folder)
    if columns is not None:
        (folder / "task.json").write_text(json.dumps({"text_columns": columns}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=["bert", "xlm-roberta"])
def single(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a task over single texts."""
    return write_model(tmp_path_factory.mktemp("single"), request.param, ["review"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a task over pairs of texts; BERT's tells the two apart."""
    return write_model(tmp_path_factory.mktemp("pair"), "bert", ["premise", "hypothesis"])


def one_by_one(folder: Path, texts: list[Any]) -> np.ndarray:
    """Probabilities (texts, classes) as transformers' documentation computes them."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    with torch.no_grad():
        for text in texts:
            given = (text,) if isinstance(text, str) else text
            # In lists, for of a pair of bare texts transformers forgets the second if it is empty.
            valid = (
                [t.encode("utf-16", "surrogatepass").decode("utf-16", "replace")] for t in given
            )
            tokens = tokenizer(*valid, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
            rows.append(model(**tokens).logits.softmax(-1)[0].numpy())
    return np.array(rows)


def test_answers_are_those_of_one_text_at_a_time_in_order(single: Path) -> None:
    texts = [*DEFAULT_TEXTS, *ODD, *(text[: n * 3] for n, text in enumerate(DEFAULT_TEXTS))]
    expected = one_by_one(single, texts)
    assert len(set(expected.argmax(1))) > 1
    labels, found = Classifier.load(single, "cpu", "fp32").predict(texts)
    assert found.dtype == np.float32 and found.shape == (len(texts), 3)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert labels == [LABELS[best] for best in expected.argmax(1)]


def test_pairs(pair: Path) -> None:
    texts = [(one, other) for one in [*DEFAULT_TEXTS[:4], *ODD] for other in ("A book.", *ODD[:9])]
    found = Classifier.load(pair, "cpu", "fp32").predict(texts).probabilities
    np.testing.assert_allclose(found, one_by_one(pair, texts), atol=2e-5)
    swapped = Classifier.load(pair, "cpu", "fp32").predict([(b, a) for a, b in texts[:5]])
    assert np.abs(swapped.probabilities - found[:5]).max() > 0.01


def test_no_texts(single: Path) -> None:
    labels, probabilities = Classifier.load(single, "cpu").predict([])
    assert labels == [] and probabilities.shape == (0, 3)


@pytest.mark.parametrize("texts", ["a text", ["a", ("b", "c")], [("a", "b")], [("a",) * 3]])
def test_what_is_not_of_the_task_is_refused(single: Path, texts: Any) -> None:
    with pytest.raises(ValueError, match="texts: "):
        Classifier.load(single, "cpu").predict(texts)


def test_folders_without_a_classifier_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no model in that folder"):
        Classifier.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="was not fine-tuned"):
        Classifier.load(tiny_encoder(tmp_path / "pretrained"))
    (tmp_path / "pretrained" / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be loaded"):
        Classifier.load(tmp_path / "pretrained")


@pytest.mark.parametrize("device", ["gpu", "cpu:x", "cuda:99"])
def test_a_device_that_is_not_there_is_told(pair: Path, device: str) -> None:
    with pytest.raises(UserError, match=f"device {device}"):
        Classifier.load(pair, device)


def classified(folder: Path, file: Path, *given: Any) -> list[str]:
    """The lines that a file is answered with."""
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


def test_a_text_column_too_many_is_told(single: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text("review\tb\nx\ty\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"the model takes 1 \(review\), not 2"):
        classified(single, file, None, ["review", "b"])
