"""A finished trial on one page: each language's score, what is confused, the worst mistakes.

The page shows test texts, so they go wherever the trial is recorded. It needs nothing else: no
scripts, no network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from xlt_ray.config.task import TaskSpec
from xlt_ray.data.labelled import Examples, read_examples
from xlt_ray.data.sources import find_files
from xlt_ray.evaluation.mistakes import Mistake, Score, confusion_counts, scores, worst_mistakes
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.figures import style
from xlt_ray.figures.confusion import confusion
from xlt_ray.report.html import STYLE, picture

if TYPE_CHECKING:
    from xlt_ray.tracking.recorder import Recorder

PAGE, CONFUSION = "trial.html", "confusion.png"
"""Names of the artifacts."""
_MOST_CHARACTERS = 1000
"""Characters of a text on the page; a model reads few more."""


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
        style.save(figure, image)
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
