"""The best model of a search: transformers alone loads it, and it scores what the table says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, pipeline

from tests.integration.conftest import Finished
from tests.support.searching import LANGUAGES, ROOT, Run, environment, launch
from xlt_ray.inference.classifier import Classifier
from xlt_ray.names import STATE

PREDICT = (sys.executable, str(ROOT / "launch.py"), "predict")


@pytest.fixture(scope="module")
def folder(finished_search: Finished) -> Path:
    return finished_search.folder


@pytest.fixture(scope="module")
def finished(finished_search: Finished) -> Run:
    return finished_search.run


@pytest.fixture(scope="module")
def state(finished_search: Finished) -> Path:
    return finished_search.state


@pytest.fixture(scope="module")
def model(state: Path) -> Path:
    return state / "best-model"


@pytest.fixture(scope="module")
def winner(state: Path) -> dict[str, Any]:
    return json.loads((state / "leaderboard.json").read_text())[0]


@pytest.fixture(scope="module")
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pairs(folder: Path, language: str) -> list[tuple[tuple[str, str], str]]:
    """The test pairs of a language and their labels."""
    (file,) = folder.rglob(f"test-{language}.tsv")
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    return [((first, second), label) for first, second, label in rows]


def test_transformers_alone_scores_what_the_leaderboard_says(
    model: Path, folder: Path, winner: dict[str, Any], finished: Run, threads: None
) -> None:
    assert "best-model" in finished.output
    assert "models:/tiny@champion is version 1" in finished.output
    classify = pipeline("text-classification", model=str(model), device="cpu")
    for language in LANGUAGES:
        rows = pairs(folder, language)
        found = classify([{"text": a, "text_pair": b} for (a, b), _ in rows])
        right = sum(one["label"] == label for one, (_, label) in zip(found, rows, strict=True))
        assert right / len(rows) == pytest.approx(winner[f"test/accuracy/{language}"])


def test_classifier_answers_as_transformers_does(model: Path, folder: Path, threads: None) -> None:
    texts = [text for language in LANGUAGES for text, _ in pairs(folder, language)]
    answers = Classifier.load(model, "cpu", "fp32").predict(texts)
    classify = pipeline("text-classification", model=str(model), device="cpu", top_k=None)
    expected = classify([{"text": a, "text_pair": b} for a, b in texts])
    for label, found, scores in zip(*answers, expected, strict=True):
        by_class = {one["label"]: one["score"] for one in scores}
        assert label == max(by_class, key=by_class.__getitem__)
        assert found == pytest.approx([by_class["yes"], by_class["no"]], abs=1e-5)


def test_folder_has_the_whole_vocabulary_and_the_tasks_labels(model: Path, folder: Path) -> None:
    config = AutoConfig.from_pretrained(model)
    assert config.id2label == {0: "yes", 1: "no"} and config.label2id == {"yes": 0, "no": 1}
    tokenizer = AutoTokenizer.from_pretrained(model)
    table = load_file(model / "model.safetensors")["roberta.embeddings.word_embeddings.weight"]
    base = load_file(folder / "encoder" / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert len(table) == config.vocab_size == len(tokenizer) == len(base)
    # The search trained fewer rows than there are; the others are the base model's.
    (kept,) = (np.load(file)["kept"] for file in (folder / "cache" / "trimmed").rglob("kept.npz"))
    left_out = np.setdiff1d(np.arange(len(base)), kept)
    assert len(left_out) > 0
    assert torch.equal(table[left_out], base[left_out])
    assert not torch.equal(table[kept], base[kept])
    # Cut off where training did.
    assert tokenizer.model_max_length == 32
    assert not list(model.glob("*.bin")) and not list(model.glob("*.py"))


def test_card_tells_what_the_model_is(model: Path, winner: dict[str, Any], folder: Path) -> None:
    card = (model / "README.md").read_text(encoding="utf-8")
    for language in LANGUAGES:
        accuracy = f"{100 * winner[f'test/accuracy/{language}']:.1f}"
        assert any(
            line.startswith(f"| {language}") and accuracy in line for line in card.split("\n")
        )
    for told in ("Task: tiny", "premise and hypothesis", "en only", "licences", winner["trial"]):
        assert told in card
    assert str(folder) not in card
    assert str(folder) not in (model / "config.json").read_text()


def test_only_the_best_is_left_and_nothing_half_written(state: Path) -> None:
    assert [path.name for path in state.glob("*model*")] == ["best-model"]
    assert not list(state.glob(".*best-model*"))


def test_weights_are_left_of_those_that_may_be_looked_at_again(
    state: Path, winner: dict[str, Any]
) -> None:
    def of(file: str) -> set[str]:
        found = (state / STATE / "checkpoints").rglob(file)
        return {path.parent.parent.name.removeprefix("trial-") for path in found}

    assert len(of("predictions.npz")) >= 2
    # Plain fine-tuning and the best configuration keep theirs, which a later evaluation of
    # language pairs needs, and so do the two best trials and the best soup, one of which a later
    # confirmation may choose.
    rows = json.loads((state / "leaderboard.json").read_text(encoding="utf-8"))
    ranked = [row["trial"] for row in rows if row["rank"] and row["trial"] != "plain"]
    searched = next(label for label in ranked if label in ("paper", "01"))
    singles = [label for label in ranked if "soup" not in label][:2]
    soups = [label for label in ranked if "soup" in label][:1]
    assert of("model.safetensors") == {winner["trial"], searched, "plain", *singles, *soups}


def test_a_lost_checkpoint_costs_the_search_its_model_only(state: Path, folder: Path) -> None:
    """Goes on with the finished search, whose model and weights are gone."""
    kept = folder / "kept"
    shutil.move(state / "best-model", kept)
    moved = {}
    for number, weights in enumerate((state / STATE / "checkpoints").rglob("model.safetensors")):
        moved[weights] = folder / f"weights-{number}"
        weights.rename(moved[weights])
    try:
        run = launch("--resume", str(state), folder=folder)
    finally:
        for weights, place in moved.items():
            place.rename(weights)
        shutil.move(kept, state / "best-model")
    # Whoever serves `best-model` next is warned by the exit code.
    assert run.code == 1, run.output + run.errors
    assert "Chosen on dev data" in run.output
    assert "The best model was not written" in run.output and "Traceback" not in run.output


def test_predict_writes_the_rows_with_their_answers(
    model: Path, folder: Path, tmp_path: Path
) -> None:
    rows = pairs(folder, "de")
    file, output = tmp_path / "texts.jsonl", tmp_path / "answers.jsonl"
    lines = [{"id": n, "premise": a, "hypothesis": b} for n, ((a, b), _) in enumerate(rows)]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    done = subprocess.run(
        [*PREDICT, "--model", str(model), "--input", str(file), "--output", str(output)],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stdout == "", done.stderr
    written = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [{key: row[key] for key in ("id", "premise", "hypothesis")} for row in written] == lines
    classify = pipeline("text-classification", model=str(model), device="cpu")
    expected = classify([{"text": a, "text_pair": b} for (a, b), _ in rows])
    assert [row["predicted"] for row in written] == [one["label"] for one in expected]
    for row, one in zip(written, expected, strict=True):
        # bf16, where the machine has it.
        assert row[f"probability/{row['predicted']}"] == pytest.approx(one["score"], abs=0.02)
        assert row["probability/yes"] + row["probability/no"] == pytest.approx(1, abs=1e-5)
