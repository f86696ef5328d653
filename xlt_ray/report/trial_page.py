"""A finished trial on one page: each language's score, what is confused, the worst mistakes.

The page shows test texts, so they go wherever the trial is recorded. It needs nothing else: no
scripts, no network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from xlt_ray.config.task import TaskSpec
from xlt_ray.data.sources import Examples, find_files, read_examples
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.figures import results
from xlt_ray.report.html import STYLE, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xlt_ray.tracking.recorder import Recorder

PAGE, CONFUSION = "trial.html", "confusion.png"
"""Names of the artifacts."""
MOST_MISTAKES = 10
"""Mistakes of a language on the page."""
_MOST_CLASSES = 12
"""Classes up to which the cells of a confusion matrix tell their values."""
_MOST_LETTERS = 14
"""Letters of a class's name in the picture."""
_MOST_CHARACTERS = 1000
"""Characters of a text on the page; a model reads few more."""
_WIDTH = 14.0
"""About the greatest width of the picture, in inches."""


@dataclass(frozen=True)
class Score:
    """How well one language is classified."""

    language: str
    """Its code."""
    texts: int
    """How many were classified, one or more."""
    right: int
    """How many of them rightly."""
    low: float
    """Low end of the accuracy's Wilson 95 % interval, in [0, 1]."""
    high: float
    """High end of it."""
    macro_f1: float
    """Mean F1 over the classes that occur, as gold or as predicted, in [0, 1]."""

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.right / self.texts


@dataclass(frozen=True)
class Mistake:
    """A text that was classified wrongly."""

    row: int
    """Position of the text in its language's test split, from 0."""
    predicted: int
    """Class id."""
    label: int
    """Gold class id."""
    probability: float | None
    """Of the predicted class, in [0, 1]; None where it was not kept."""
    texts: tuple[str, ...]
    """The text, or the two of a pair."""
    source_texts: tuple[str, ...] | None
    """The same in the source language; None where the test sets are not parallel."""
    source_predicted: int | None
    """What the trial answered to those."""


def read_test_texts(task: TaskSpec, limit: int | None) -> dict[str, Examples]:
    """Read the test texts that every trial of a search is scored on.

    Args:
        task: The task.
        limit: Rows of each language at most, from the start; None: all.

    Returns:
        The examples of each language, in the order of the predictions.

    Raises:
        UserError: If a file is missing or wrong.
    """
    files = find_files(task, ["test"])
    return {code: read_examples(task, paths).first(limit) for (_, code), paths in files.items()}


def record_trial(
    recorder: Recorder,
    label: str,
    title: str,
    predictions: Predictions,
    task: TaskSpec,
    examples: Mapping[str, Examples],
) -> None:
    """Record a trial's page and picture as artifacts of its run.

    Args:
        recorder: Where to.
        label: The trial's.
        title: The name of its run.
        predictions: Of the test set.
        task: The task.
        examples: What :func:`read_test_texts` returned.

    Raises:
        ValueError: If the predictions are not those of the examples.
        OSError: If nothing can be written.
    """
    counts = confusion_counts(predictions, len(task.labels))
    with tempfile.TemporaryDirectory(prefix="xlt-ray-") as folder:
        image, written = Path(folder) / CONFUSION, Path(folder) / PAGE
        figure = confusion(counts, predictions.languages, task.source_language, task.labels)
        results.save(figure, image)
        text = page(
            title,
            scores(counts, predictions.languages),
            worst_mistakes(predictions, examples, task.source_language),
            task,
            image,
        )
        written.write_text(text, encoding="utf-8")
        for path in (written, image):
            recorder.log_artifact(label, path)


def confusion_counts(predictions: Predictions, classes: int) -> np.ndarray:
    """Count how often each class was taken for each.

    Args:
        predictions: Of one split.
        classes: Number of classes.

    Returns:
        Texts (languages, classes, classes); a row for each gold class, a column for each answer.
    """
    cells = (len(predictions.languages), classes, classes)
    # The arrays of a file are 16 bits wide, too narrow for the number of a cell.
    places = [
        values.astype(np.int64)
        for values in (predictions.language, predictions.labels, predictions.predicted)
    ]
    numbers = np.ravel_multi_index(tuple(places), cells)
    return np.bincount(numbers, minlength=int(np.prod(cells))).reshape(cells)


def scores(counts: np.ndarray, languages: Sequence[str]) -> list[Score]:
    """Score each language.

    Args:
        counts: What :func:`confusion_counts` returned (languages, classes, classes).
        languages: Codes of the languages.

    Returns:
        A score for each language that has a text, in their order.
    """
    from scipy.stats import binomtest

    found = []
    for code, matrix in zip(languages, counts, strict=True):
        texts, right = int(matrix.sum()), int(matrix.trace())
        if not texts:
            continue
        interval = binomtest(right, texts).proportion_ci(method="wilson")
        occurrences = matrix.sum(0) + matrix.sum(1)
        f1 = 2 * matrix.diagonal()[occurrences > 0] / occurrences[occurrences > 0]
        found.append(
            Score(
                code,
                texts,
                right,
                float(interval.low),
                float(interval.high),
                float(f1.mean()),
            )
        )
    return found


def worst_mistakes(
    predictions: Predictions,
    examples: Mapping[str, Examples],
    source: str,
    most: int = MOST_MISTAKES,
) -> dict[str, list[Mistake]]:
    """Find the texts of each target language that were classified wrongly with most certainty.

    Args:
        predictions: Of the test set.
        examples: The test set by language.
        source: Code of the source language.
        most: Mistakes of a language at most.

    Returns:
        Mistakes by target language, the surest first and, of equally sure ones or where
        probabilities were not kept, in the order of the texts. The source's texts stand beside
        those of a language that has the same rows with the same gold labels.

    Raises:
        ValueError: If the predictions are not those of the examples.
    """
    from xlt_ray.evaluation.alignment import is_parallel

    items = {
        code: np.flatnonzero(predictions.language == index)
        for index, code in enumerate(predictions.languages)
    }
    for code, places in items.items():
        if predictions.labels[places].tolist() != examples[code].labels:
            raise ValueError(f"the test texts in {code} are not those that were scored")
    own = items[source]
    found = {}
    for code, places in items.items():
        if code == source:
            continue
        both = np.concatenate([own, places])
        parallel = is_parallel(
            np.repeat([0, 1], [len(own), len(places)]),
            np.concatenate([np.arange(len(own)), np.arange(len(places))]),
            predictions.labels[both],
            (source, code),
        )
        wrong = np.flatnonzero(predictions.predicted[places] != predictions.labels[places])
        sure = None if predictions.probability is None else predictions.probability[places]
        if sure is not None:
            wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
        found[code] = [
            Mistake(
                row,
                int(predictions.predicted[places[row]]),
                int(predictions.labels[places[row]]),
                None if sure is None else float(sure[row]),
                tuple(column[row] for column in examples[code].texts),
                tuple(column[row] for column in examples[source].texts) if parallel else None,
                int(predictions.predicted[own[row]]) if parallel else None,
            )
            for row in wrong[:most].tolist()
        ]
    return found


def confusion(
    counts: np.ndarray, languages: Sequence[str], source: str, labels: Sequence[str]
) -> Figure:
    """Draw a confusion matrix for each language.

    Args:
        counts: What :func:`confusion_counts` returned (languages, classes, classes).
        languages: Codes of the languages.
        source: Code of the source language.
        labels: Names of the classes.

    Returns:
        Heat maps, a panel for each language with its accuracy: the share of each answer in the
        texts of a gold class. Up to 12 classes, the cells tell it in percent; a class without a
        text has zeros.

    Raises:
        ValueError: If the counts are of another shape.
    """
    classes = len(labels)
    if counts.shape != (len(languages), classes, classes) or not counts.size:
        raise ValueError(f"counts {counts.shape} for {len(languages)} languages, {classes} classes")
    says = classes <= _MOST_CLASSES
    cell = max(1.3 / classes, 0.38) if says else 4.5 / classes  # inches
    gap = max(1, round(0.4 / cell))
    size = classes + gap
    rows = ceil(len(languages) / max(1, int(_WIDTH / (size * cell))))
    columns = ceil(len(languages) / rows)
    names = [name if len(name) <= _MOST_LETTERS else f"{name[:12]}…" for name in labels]
    room = 0.085 * max(map(len, names))  # inches, by an average letter's width

    # One panel with gaps: one for each language would take seconds to lay out.
    percent = np.full((rows * size, columns * size - gap), np.nan)
    lefts, tops = np.arange(columns) * size, np.arange(rows) * size + gap
    figure, axes = results.new_figure(
        max(percent.shape[1] * cell + room + 1.6, 3.8), len(percent) * cell + room + 0.5
    )
    for index, (code, matrix) in enumerate(zip(languages, counts, strict=True)):
        top, left = tops[index // columns], lefts[index % columns]
        totals = matrix.sum(1, keepdims=True)
        percent[top : top + classes, left : left + classes] = 100 * matrix / np.maximum(totals, 1)
        accuracy = 100 * matrix.trace() / max(1, matrix.sum())
        title = f"{code}{' (source)' if code == source else ''} {accuracy:.1f} %"
        axes.text(left + (classes - 1) / 2, top - 0.5 - 0.05 / cell, title, size=9, ha="center")
    image = axes.imshow(percent, cmap="viridis", vmin=0, vmax=100)
    if says:
        results.say_values(axes, image, digits=0)
    for text in axes.texts:
        text.set_in_layout(False)  # It lies within the panel; measuring it takes long.
    each = np.arange(classes)
    axes.set_xticks(np.add.outer(lefts, each).ravel(), names * columns, size=8, rotation=90)
    axes.set_yticks(np.add.outer(tops, each).ravel(), names * rows, size=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("answer")
    axes.set_ylabel("gold class")
    bar = axes.inset_axes(
        (1 + 0.2 / (percent.shape[1] * cell), 0, 0.15 / (percent.shape[1] * cell), 1)
    )
    figure.colorbar(image, cax=bar, label="of the gold class's texts (%)")
    return figure


_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>$title</title>
<style>
$style
td { vertical-align: top } .text { white-space: normal; min-width: 16em; max-width: 34em }
.text div { overflow-wrap: anywhere } .text div + div { margin-top: .3em }
</style>
</head>
<body>
<h1>$title</h1>
<p>$summary</p>
<h2>Test accuracy by language</h2>
$scores
<h2>What is taken for what</h2>
$picture
<h2>Worst mistakes</h2>
<p class="note">$order</p>
$mistakes
</body>
</html>
""")


def page(
    title: str,
    scored: Sequence[Score],
    mistakes: Mapping[str, Sequence[Mistake]],
    task: TaskSpec,
    image: Path,
) -> str:
    """Write the page.

    The texts of the mistakes become part of it: what is confidential in the test data is in the
    page as well, and in MLflow, where the page goes.

    Args:
        title: The name of the trial's run.
        scored: What :func:`scores` returned.
        mistakes: What :func:`worst_mistakes` returned.
        task: The task.
        image: PNG file of the confusion matrices, which becomes part of the page.

    Returns:
        HTML.

    Raises:
        OSError: If the picture cannot be read.
    """
    targets = [score.accuracy for score in scored if score.language != task.source_language]
    summary = f"Task {task.name}: {len(task.labels)} classes, {len(scored)} languages."
    if targets:
        summary += f" Zero-shot mean {100 * np.mean(targets):.1f} %."
    wrong = {score.language: score.texts - score.right for score in scored}
    known = all(each.probability is not None for found in mistakes.values() for each in found)
    order = (
        "The wrong answers that the model was surest of."
        if known
        else "The first wrong answers; how sure the model was of them has not been kept."
    )
    return _PAGE.substitute(
        title=escape(title),
        style=STYLE,
        summary=escape(summary),
        scores=_scores(scored, task.source_language),
        picture=picture(image),
        order=f"{order} A text that stands beside its source has the same row in both test sets.",
        mistakes="\n".join(
            _mistakes(code, found, wrong.get(code, 0), task) for code, found in mistakes.items()
        ),
    )


def _scores(scored: Sequence[Score], source: str) -> str:
    lines = []
    for score in scored:
        is_source = score.language == source
        name = escape(score.language) + (" (source)" if is_source else "")
        figures = (
            str(score.texts),
            f"{100 * score.accuracy:.1f}",
            f"[{100 * score.low:.1f}, {100 * score.high:.1f}]",
            f"{100 * score.macro_f1:.1f}",
        )
        cells = "".join(f'<td class="right">{figure}</td>' for figure in figures)
        lines.append(f'<tr class="{"cyan" if is_source else ""}"><td>{name}</td>{cells}</tr>')
    heads = ("texts", "accuracy (%)", "95 % interval", "macro-F1 (%)")
    head = "<th>language</th>" + "".join(f'<th class="right">{name}</th>' for name in heads)
    note = "Wilson's interval, over the test texts; another seed is not in it."
    return f'{_table(head, lines)}\n<p class="note">{note}</p>'


def _mistakes(code: str, found: Sequence[Mistake], wrong: int, task: TaskSpec) -> str:
    texts, source = " / ".join(task.text_columns), task.source_language
    heading = f"<h3>{escape(code)}: {len(found)} of {wrong} mistakes</h3>"
    if not found:
        return heading
    parallel = found[0].source_texts is not None
    heads = ["row", "answer", "sure (%)", "gold", f"{code}: {texts}"]
    if parallel:
        heads += [f"{source}: {texts}", f"answer in {source}"]
    lines = []
    for each in found:
        sure = "" if each.probability is None else f"{100 * each.probability:.1f}"
        cells = (
            f'<td class="right">{each.row + 1}</td><td>{escape(task.labels[each.predicted])}</td>'
            f'<td class="right">{sure}</td><td>{escape(task.labels[each.label])}</td>'
            + _text(each.texts, code)
        )
        if each.source_texts is not None and each.source_predicted is not None:
            right = "right" if each.source_predicted == each.label else "wrong"
            answer = escape(task.labels[each.source_predicted])
            cells += f"{_text(each.source_texts, source)}<td>{answer}, {right}</td>"
        lines.append(f"<tr>{cells}</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f"{heading}\n{_table(head, lines)}"


def _text(texts: Sequence[str], code: str) -> str:
    """A cell with the text, or the two of a pair one below the other."""
    parts = (
        text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…" for text in texts
    )
    # Each runs as its own letters do, from the right in Arabic.
    body = "".join(f'<div dir="auto">{escape(part)}</div>' for part in parts)
    return f'<td class="text" lang="{escape(code)}">{body}</td>'


def _table(head: str, lines: Sequence[str]) -> str:
    body = "\n".join(lines)
    return (
        f'<div class="wide">\n<table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )
