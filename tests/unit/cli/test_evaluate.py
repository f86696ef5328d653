"""`evaluate` on the command line: the scores of a model that transformers classifies with one text
at a time, and mistakes in one line."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.support.searching import LANGUAGES, write_task
from tests.support.tiny_encoder import tiny_encoder
from xlt_ray.cli.app import main

UNSURE = 0.05
"""Differences of logits below this may come out otherwise where bf16 is computed with."""


class Made(NamedTuple):
    """A task and a model of it."""

    task: Path
    model: Path
    folder: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("evaluate")
    task = write_task(folder / "data")
    texts = [
        line for file in sorted(folder.rglob("*.tsv")) for line in file.read_text().split("\t")
    ]
    encoder = tiny_encoder(folder / "encoder", "xlm-roberta", texts=texts, num_labels=2)
    torch.manual_seed(3)
    # The task counts its classes the other way round.
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder, id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1}
    )
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.normal_(0, 1)
        # So that either class is answered at times.
        model.classifier.out_proj.bias.zero_()
    model.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder / "model")
    return Made(task, folder / "model", folder)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows(made: Made, language: str, split: str = "test") -> list[list[str]]:
    text = (made.folder / "data" / f"{split}-{language}.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()]


class OneByOne:
    """The model as transformers alone runs it, a pair at a time and without padding."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    @torch.inference_mode()
    def right(self, triples: Sequence[Sequence[str]]) -> tuple[int, int]:
        """How many it surely gets right at least, and may get right at most."""
        least = most = 0
        for first, second, label in triples:
            logits = self.model(**self.tokenizer(first, second, return_tensors="pt")).logits[0]
            right = self.model.config.id2label[int(logits.argmax())] == label
            sure = abs(float(logits[0] - logits[1])) > UNSURE
            least += right and sure
            most += right or not sure
        assert most - least <= 2
        return least, most

    @torch.inference_mode()
    def embedding(self, first: str, second: str) -> np.ndarray:
        """Mean of the last layer's hidden states, of length 1."""
        tokens = self.tokenizer(first, second, return_tensors="pt")
        hidden = self.model(**tokens, output_hidden_states=True).hidden_states[-1]
        mean = hidden[0].mean(0).double().numpy()
        return mean / np.linalg.norm(mean)


def run(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int | str | None, str, str]:
    monkeypatch.setattr(sys, "argv", ["xlt-ray", "evaluate", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


def scores(
    made: Made,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *flags: str,
) -> tuple[dict[str, Any], str]:
    output = made.folder / "scores.json"
    given = ["--model", str(made.model), "--task", str(made.task), "--output", str(output)]
    code, shown, errors = run([*given, "--device", "cpu", *flags], monkeypatch, capsys)
    assert not code, errors
    return json.loads(output.read_text()), shown


def wilson(correct: int, examples: int) -> tuple[float, float]:
    """Wilson's formula (JASA 22, 1927)."""
    z, p, n = 1.959964, correct / examples, examples
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


@pytest.mark.parametrize("split", ["test", "dev"])
def test_accuracies_are_those_of_transformers_one_by_one(
    split: str, made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, shown = scores(made, monkeypatch, capsys, "--split", split)
    model = OneByOne(made.model)
    assert list(found["languages"]) == list(LANGUAGES)
    accuracies = {}
    for code in LANGUAGES:
        least, most = model.right(rows(made, code, split))
        told = found["languages"][code]
        assert least <= told["correct"] <= most and told["examples"] == 18
        accuracies[code] = told["accuracy"]
        assert told["accuracy"] == pytest.approx(told["correct"] / 18)
        low, high = wilson(told["correct"], 18)
        assert (told["low"], told["high"]) == pytest.approx((low, high), abs=1e-5)
        (line,) = (row for row in shown.splitlines() if f"│ {code}" in row)
        assert f" {100 * told['accuracy']:.1f} " in line
        assert f"[{100 * low:.1f}, {100 * high:.1f}]" in line
    # Both classes are answered, so that classes that are mixed up would be seen.
    assert 0 < sum(accuracies.values()) < 3
    assert found["zero_shot_mean"] == pytest.approx((accuracies["de"] + accuracies["ru"]) / 2)
    (line,) = (row for row in shown.splitlines() if "zero-shot mean" in row)
    assert f" {100 * found['zero_shot_mean']:.1f} " in line
    assert found["alignment"] is None and found["generalized"] is None


def test_languages_are_chosen_also_such_as_the_task_has_not(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for code, place in (("ru", "ru"), ("de", "xx")):
        text = (made.folder / "data" / f"test-{code}.tsv").read_text()
        (tmp_path / f"test-{place}.tsv").write_text(text)
    every, _ = scores(made, monkeypatch, capsys)
    flags = ("--languages", "xx,ru,xx", "--data-dir", str(tmp_path))
    found, shown = scores(made, monkeypatch, capsys, *flags)
    assert found["languages"] == {
        "xx": every["languages"]["de"],
        "ru": every["languages"]["ru"],
    }
    assert found["zero_shot_mean"] == pytest.approx(every["zero_shot_mean"])
    (tmp_path / "test-en.tsv").write_text((made.folder / "data" / "test-en.tsv").read_text())
    alone, shown = scores(
        made, monkeypatch, capsys, "--languages", "en", "--data-dir", str(tmp_path)
    )
    assert alone["zero_shot_mean"] is None and "zero-shot" not in shown


def test_alignment_and_pairs_of_languages_are_what_one_by_one_gives(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, shown = scores(made, monkeypatch, capsys, "--alignment", "--generalized")
    model = OneByOne(made.model)
    vectors = {
        code: np.stack([model.embedding(a, b) for a, b, _ in rows(made, code)])
        for code in LANGUAGES
    }
    for code in LANGUAGES[1:]:
        cosines = vectors["en"] @ vectors[code].T
        others = cosines[~np.eye(18, dtype=bool)]
        margin = cosines.diagonal().mean() - others.mean()
        assert found["alignment"][f"margin/{code}"] == pytest.approx(margin, abs=0.01)
        # Nearly equal texts may change places.
        gold = cosines.diagonal()
        hits = [gold >= cosines.max(axis) - 0.002 for axis in (0, 1)]
        assert found["alignment"][f"retrieval/{code}"] == pytest.approx(np.mean(hits), abs=0.12)
    pairs = found["generalized"]["accuracy"]
    every = []
    for first in LANGUAGES:
        for second in LANGUAGES:
            mixed = [
                (one[0], other[1], one[2])
                for one, other in zip(rows(made, first), rows(made, second), strict=True)
            ]
            least, most = model.right(mixed)
            assert least <= round(18 * pairs[first][second]) <= most
            every.append(pairs[first][second])
            if first == second:
                assert pairs[first][second] == found["languages"][first]["accuracy"]
    assert found["generalized"]["generalized/mean"] == pytest.approx(np.mean(every))
    assert "retrieval" in shown and "premise" in shown


def test_the_same_without_a_table_of_classes_is_a_mistake_too(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A classifier whose configuration has transformers' own names of classes."""
    import shutil

    model = tmp_path / "model"
    shutil.copytree(made.model, model)
    config = json.loads((model / "config.json").read_text())
    for key in ("id2label", "label2id"):
        del config[key]
    (model / "config.json").write_text(json.dumps(config))
    given = ["--model", str(model), "--task", str(made.task)]
    code, output, errors = run(given, monkeypatch, capsys)
    assert code == 2 and output == "" and len(errors.splitlines()) == 1
    assert "its classes are LABEL_0, LABEL_1; those of the task tiny are yes, no" in errors


WRONG = {
    "model": (["--model", "nowhere"], "--model nowhere: there is no model in that folder"),
    "task": (["--task", "dmo"], "no such task (did you mean 'demo'?)"),
    "classes": (["--task", "demo"], "its classes are no, yes; those of the task demo are weather"),
    "data": (["--data-dir", "nowhere"], "--data-dir nowhere: there is no such folder"),
    "code": (["--languages", "de,"], "--languages: "),
    "language": (["--languages", "dee"], "languages found there: de, en, ru"),
    "split": (["--split", "tset"], "tset"),
    "ending": (["--output", "scores.csv"], "--output scores.csv: it must end in .json"),
    "place": (["--output", "nowhere/scores.json"], "there is no folder"),
    "flag": (["--alignement"], "--alignment"),
    "device": (["--device", "abacus"], "device abacus"),
    "source": (["--alignment", "--languages", "de,ru"], "--alignment: it takes the source lang"),
    "two": (["--generalized", "--languages", "en"], "--generalized: it takes the source lang"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_told_in_one_line(
    case: str,
    made: Made,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    changed, told = WRONG[case]
    monkeypatch.chdir(tmp_path)
    flags = {"--model": str(made.model), "--task": str(made.task)}
    words = [word for flag, value in flags.items() if flag not in changed for word in (flag, value)]
    code, output, errors = run([*words, *changed], monkeypatch, capsys)
    assert code == 2 and output == ""
    assert errors.startswith("error: ") and len(errors.splitlines()) == 1
    assert told in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--alignment", "--generalized"])
@pytest.mark.parametrize("how", ["rows", "labels"])
def test_what_is_not_parallel_is_refused(
    flag: str,
    how: str,
    made: Made,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    for code in LANGUAGES:
        lines = (made.folder / "data" / f"test-{code}.tsv").read_text().splitlines()
        if code == "de":
            lines = lines[:-1] if how == "rows" else [*lines[1:], lines[0]]
        (tmp_path / f"test-{code}.tsv").write_text("\n".join(lines) + "\n")
    given = ["--model", str(made.model), "--task", str(made.task), "--data-dir", str(tmp_path)]
    code, output, errors = run([*given, flag], monkeypatch, capsys)
    assert code == 2 and output == "" and len(errors.splitlines()) == 1
    assert errors.startswith(f"error: {flag}: the test set of tiny is not parallel")


def test_pairs_of_languages_take_pairs_of_texts(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    task = yaml.safe_load(made.task.read_text()) | {"text_columns": ["premise"]}
    (tmp_path / "single.yaml").write_text(yaml.safe_dump(task))
    given = ["--model", str(made.model), "--task", str(tmp_path / "single.yaml"), "--generalized"]
    code, output, errors = run(given, monkeypatch, capsys)
    assert code == 2 and output == "" and len(errors.splitlines()) == 1
    assert "--generalized: tiny has one text per example" in errors
