"""The page of a finished trial: scores by language, confusion matrices, worst mistakes.

The pipeline records it in MLflow. It shows test texts, and needs neither scripts nor a network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xlt_ray.config.task import TaskSpec
from xlt_ray.data.labelled import Examples, read_examples
from xlt_ray.data.sources import find_files
from xlt_ray.evaluation.mistakes import (
    LanguageScore,
    Mistake,
    confusion_counts,
    scores,
    worst_mistakes,
)
from xlt_ray.evaluation.saved_predictions import Predictions
from xlt_ray.figures import style
from xlt_ray.figures.confusion import confusion
from xlt_ray.report.html import picture, render

if TYPE_CHECKING:
    from xlt_ray.tracking.recorder import Recorder

PAGE, CONFUSION = "trial.html", "confusion.png"
"""Names of the artifacts."""


def read_test_texts(task: TaskSpec, limit: int | None) -> dict[str, Examples]:
    """Read the test texts that every trial of a search is scored on.

    Args:
        task: The task.
        limit: Maximum number of rows per language, from the start; None: all.

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
        recorder: Gets the files.
        label: The trial's label.
        title: The name of its run.
        predictions: Its predictions on the test set.
        task: The task.
        examples: The test texts, from :func:`read_test_texts`.

    Raises:
        ValueError: If the predictions do not belong to the examples.
        OSError: If the files cannot be written.
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


def page(
    title: str,
    scored: Sequence[LanguageScore],
    mistakes: Mapping[str, Sequence[Mistake]],
    task: TaskSpec,
    image: Path,
) -> str:
    """Return the page of a trial.

    The page shows test texts: if the test data is confidential, so is the page, also in MLflow.

    Args:
        title: The name of the trial's run.
        scored: The scores by language.
        mistakes: The mistakes to show, by language.
        task: The task.
        image: A PNG file of the confusion matrices, which is embedded in the page.

    Returns:
        HTML.

    Raises:
        OSError: If the picture cannot be read.
    """
    targets = [score.accuracy for score in scored if score.language != task.source_language]
    known = all(each.probability is not None for found in mistakes.values() for each in found)
    return render(
        "trial.html.j2",
        title=title,
        task=task,
        source=task.source_language,
        columns=" / ".join(task.text_columns),
        scores=scored,
        zero_shot=float(np.mean(targets)) if targets else None,
        image=picture(image),
        order=(
            "The wrong answers that the model was surest of."
            if known
            else "The first wrong answers; how sure the model was of them has not been kept."
        ),
        mistakes=mistakes,
        wrong={score.language: score.texts - score.right for score in scored},
    )
