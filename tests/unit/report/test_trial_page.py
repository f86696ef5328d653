"""The page of a trial: its tables, its figure and hostile texts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from tests.support.scored_texts import EXAMPLES, HOSTILE, PREDICTIONS
from tests.support.searching import write_task
from xlt_ray.config.task import TaskSpec, load_task
from xlt_ray.evaluation.mistakes import confusion_counts, scores, worst_mistakes
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.figures import style
from xlt_ray.figures.confusion import confusion
from xlt_ray.report.trial_page import page, read_test_texts, record_trial
from xlt_ray.tracking.recorder import MlflowRecorder, TrackingSettings


@pytest.fixture
def task(tmp_path: Path) -> TaskSpec:
    return load_task(str(write_task(tmp_path / "data"))).model_copy(
        update={"labels": ("yes", "<maybe>", "no")}
    )


class Tables(HTMLParser):
    """Text of the cells of every table, and the tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data: str) -> None:
        if self.tables and self.tables[-1] and self.tables[-1][-1] and data.strip():
            self.tables[-1][-1][-1] += data


def shown(task: TaskSpec, folder: Path, predictions: Predictions) -> tuple[str, Tables]:
    counts = confusion_counts(predictions, 3)
    image = folder / "confusion.png"
    style.save(confusion(counts, predictions.languages, "en", task.labels), image)
    found = worst_mistakes(predictions, EXAMPLES, "en")
    text = page("01 <ear>", scores(counts, predictions.languages), found, task, image)
    return text, Tables(text)


def test_page_tells_scores_and_mistakes_and_runs_nothing(task: TaskSpec, tmp_path: Path) -> None:
    text, found = shown(task, tmp_path, PREDICTIONS)
    accuracy, german, russian = found.tables
    assert [row[:3] for row in accuracy] == [
        ["language", "texts", "accuracy (%)"],
        ["en (source)", "5", "80.0"],
        ["de", "5", "40.0"],
        ["ru", "3", "33.3"],
    ]
    assert german[1] == [
        *("3", "<maybe>", "99.0", "no"),
        *(f"de a2{HOSTILE}", "en a2en b2", "no, right"),
    ]
    assert len(german) == 4 and [len(row) for row in russian] == [5, 5, 5]
    assert not found.tags & {"script", "link", "maybe", "ear"}
    assert all(source.startswith("data:image/png;base64,") for source in found.sources)
    assert len(found.sources) == 1
    assert "Zero-shot mean 36.7 %" in text and 'lang="de"' in text


def test_page_of_predictions_without_probabilities(task: TaskSpec, tmp_path: Path) -> None:
    text, found = shown(task, tmp_path, replace(PREDICTIONS, probability=None))
    assert [row[0] for row in found.tables[1][1:]] == ["2", "3", "4"]
    assert [row[2] for row in found.tables[1][1:]] == ["", "", ""]
    assert "has not been kept" in text


@pytest.mark.parametrize(("languages", "classes"), [(2, 2), (7, 3), (3, 10), (1, 30)])
def test_picture_has_every_share(languages: int, classes: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, (languages, classes, classes))
    counts[0, 1] = 0  # a class without a text
    codes = [f"l{i}" for i in range(languages)]
    figure = confusion(counts, codes, "l0", [f"class {i}" for i in range(classes)])
    axes = figure.axes[0]
    texts = [text.get_text() for text in axes.texts]
    titles, cells = texts[:languages], texts[languages:]
    accuracy = 100 * counts[0].trace() / counts[0].sum()
    assert titles[0] == f"l0 (source) {accuracy:.1f} %"
    assert [title.split()[0] for title in titles] == codes
    (image,) = axes.images
    values: Any = image.get_array()
    kept = np.asarray(values)[~np.isnan(np.asarray(values))]
    expected = 100 * counts / np.maximum(counts.sum(2, keepdims=True), 1)
    assert sorted(kept) == pytest.approx(sorted(expected.ravel()))
    assert len(cells) == (counts.size if classes <= 12 else 0)
    style.save(figure, tmp_path / "confusion.png")
    width, height = figure.get_size_inches()
    assert 3 < width < 17
    pixels = imread(tmp_path / "confusion.png").shape[:2]
    assert pixels == pytest.approx((150 * height, 150 * width), abs=1)


def test_recorded_are_the_page_and_the_picture_of_the_test_files(tmp_path: Path) -> None:
    task = load_task(str(write_task(tmp_path / "data")))
    texts = read_test_texts(task, 6)
    assert {code: len(found.labels) for code, found in texts.items()} == {
        "en": 6,
        "de": 6,
        "ru": 6,
    }
    gold = np.array([texts[code].labels for code in task.languages]).ravel()
    predicted = gold.copy()
    predicted[7] = 1 - gold[7]
    found = Predictions(predicted, gold, np.repeat([0, 1, 2], 6), task.languages, np.full(18, 0.75))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    recorder = MlflowRecorder(TrackingSettings(uri, "tests", tmp_path / "spool"))
    recorder.start_search("search", {}, {})
    recorder.start_trial("01", "01", {}, {})
    record_trial(recorder, "01", "01 ear", found, task, texts)
    files = {path.name: path for path in (tmp_path / "spool" / "files").glob("*/*")}
    contents = {name: path.read_bytes() for name, path in files.items()}
    recorder.finish("FINISHED", timeout_s=0)
    assert set(contents) == {"trial.html", "confusion.png"}
    assert contents["confusion.png"].startswith(b"\x89PNG")
    (mistake,) = Tables(contents["trial.html"].decode()).tables[1][1:]
    lines = {
        code: (tmp_path / "data" / f"test-{code}.tsv").read_text("utf-8").splitlines()[1]
        for code in ("de", "en")
    }
    assert mistake[4:6] == ["".join(lines[code].split("\t")[:2]) for code in ("de", "en")]


def saved(predictions: Predictions) -> Predictions:
    file = io.BytesIO()
    predictions.save(file)  # type: ignore[arg-type]
    file.seek(0)
    return Predictions.load(file)


@pytest.mark.parametrize("values", [[0.34, 0.5], [0.999, 0.9999, 0.99999]])
def test_probabilities_survive_in_the_file_and_keep_their_order(values: Sequence[float]) -> None:
    ids = np.zeros(len(values), np.int64)
    found = saved(Predictions(ids, ids, ids, ["en"], np.array(values, np.float32))).probability
    assert found is not None
    assert found.tolist() == pytest.approx(values, abs=5e-4)
    assert (1 - found).tolist() == pytest.approx([1 - each for each in values], rel=1e-2)
    assert saved(Predictions(ids, ids, ids, ["en"])).probability is None
