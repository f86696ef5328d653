"""Scoring an exported model on a task, in every language, with intervals."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ValidationError

from xlt_ray.config.explain import one_line
from xlt_ray.config.spec import AssessmentSpec
from xlt_ray.config.task import TaskSpec, load_task, with_data_dir
from xlt_ray.errors import UserError
from xlt_ray.files import write_whole

if TYPE_CHECKING:
    from xlt_ray.data.evaluation_set import EvaluationSet
    from xlt_ray.inference.classifier import Classifier, Text


def task_of(name: str, data_dir: Path | None, languages: Sequence[str] | None) -> TaskSpec:
    """The task, with the languages that are to be scored and that it does not have itself.

    Args:
        name: Name of a packaged task, or path of a task file.
        data_dir: Folder to take the data from; None: where the task says.
        languages: Codes of the languages that are to be scored; None: the task's.

    Raises:
        UserError: If there is no such task or folder, or a code is none.
    """
    task = load_task(name)
    if data_dir is not None:
        task = with_data_dir(task, data_dir)
    if languages is None:
        return task
    targets = [*task.target_languages, *languages]
    others = [code for code in dict.fromkeys(targets) if code != task.source_language]
    try:
        return TaskSpec.model_validate(task.model_dump() | {"target_languages": others})
    except ValidationError as error:
        raise UserError(one_line(error, "--languages", TaskSpec)) from None


@dataclass(frozen=True)
class Score:
    """A model's accuracy in one language."""

    accuracy: float
    """In [0, 1]."""
    low: float
    """Lower end of the 95 % Wilson interval."""
    high: float
    """Its upper end."""
    correct: int
    """Texts that were classified rightly."""
    examples: int
    """Texts."""


def wilson(correct: int, examples: int) -> Score:
    """Score with the 95 % Wilson interval of a proportion, which fits few texts and extremes too.

    Args:
        correct: Texts that were classified rightly.
        examples: Texts, at least one.
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, examples).proportion_ci(0.95, method="wilson")
    return Score(correct / examples, float(interval.low), float(interval.high), correct, examples)


@dataclass(frozen=True)
class Scores:
    """What is found out about one model on one split of a task."""

    model: str
    """Its folder, as it was given."""
    task: str
    """Name of the task."""
    split: str
    """`test` or `dev`."""
    source: str
    """Code of the source language, which is not part of the zero-shot mean."""
    languages: dict[str, Score]
    """Accuracy by language, in the order that was asked."""
    zero_shot_mean: float | None
    """Mean accuracy over the languages other than the source; None where there is none."""
    alignment: dict[str, float] | None
    """`retrieval/XX`, `margin/XX` and their means of the last layer, and the same under
    `embedding/`; None where it was not asked for."""
    matrix: np.ndarray | None
    """Accuracies (L, L) with the premise in the language of the row and the hypothesis in that
    of the column; None where they were not asked for."""

    def write(self, path: Path) -> None:
        """Write all of it as JSON, accuracies in [0, 1]."""
        record = asdict(self)
        del record["matrix"]
        record["generalized"] = None
        if self.matrix is not None:
            from xlt_ray.evaluation.language_pairs import generalized_metrics

            codes = list(self.languages)
            record["generalized"] = generalized_metrics(self.matrix, codes, self.source) | {
                "accuracy": {
                    code: dict(zip(codes, row, strict=True))
                    for code, row in zip(codes, self.matrix.tolist(), strict=True)
                }
            }
        write_whole(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Wanted:
    """What is to be scored."""

    model: Path
    """Folder of a fine-tuned classifier."""
    task: TaskSpec
    """The task."""
    given: Sequence[str] | None
    """Codes of the languages; None: the task's."""
    split: Literal["test", "dev"]
    """Which data."""
    alignment: bool
    """Whether alignment is measured."""
    generalized: bool
    """Whether pairs of languages are scored."""

    @property
    def languages(self) -> list[str]:
        """Codes of the languages, each once."""
        return list(dict.fromkeys(self.given or self.task.languages))

    def check(self) -> None:
        """Check what needs neither the data nor the model's weights.

        Raises:
            UserError: If there is no model in the folder, its classes are others than the task's,
                or pairs of languages or alignment are asked for where there can be none.
        """
        named = _named_classes(self.model)
        if named is not None:
            self._check_classes(named)
        task = self.task
        if self.generalized and not task.is_pair:
            raise UserError(
                f"--generalized: {task.name} has one text an example; premise and hypothesis in "
                "two languages take pairs"
            )
        for flag, given in (("--alignment", self.alignment), ("--generalized", self.generalized)):
            if given and (task.source_language not in self.languages or len(self.languages) < 2):
                raise UserError(
                    f"{flag}: it takes the source language, {task.source_language}, and another "
                    f"one; --languages has {', '.join(self.languages)}"
                )

    def _check_classes(self, named: Sequence[str]) -> None:
        # By name: another model may count the same classes in another order.
        if set(named) != set(self.task.labels) or len(named) != len(self.task.labels):
            raise UserError(
                f"--model {self.model}: its classes are {', '.join(named)}; those of the task "
                f"{self.task.name} are {', '.join(self.task.labels)}"
            )

    def score(self, device: str | None) -> Scores:
        """Score the model.

        Args:
            device: Where to compute, such as `cpu` or `cuda:0`; None: a GPU if there is one.

        Raises:
            UserError: If the model or the data is wrong or lacking, or the data is not parallel
                where it has to be.
        """
        from xlt_ray.data.sources import load_split

        texts: dict[str, list[Text]] = {}
        gold: dict[str, list[str]] = {}
        for code in self.languages:
            data = load_split(self.task, self.split, code)
            columns = [data[name] for name in ("text_a", "text_b") if name in data.column_names]
            texts[code] = list(zip(*columns, strict=True))
            gold[code] = [self.task.labels[number] for number in data["label"]]

        from xlt_ray.inference.classifier import Classifier

        classifier = Classifier.load(self.model, device)
        self._check_classes(classifier.labels)
        takes = classifier.text_columns
        if takes is not None and len(takes) != len(self.task.text_columns):
            raise UserError(
                f"--model {self.model}: it takes {' and '.join(takes)} of an example, the task "
                f"{self.task.name} has {' and '.join(self.task.text_columns)}"
            )
        parallel = None
        if self.alignment or self.generalized:
            parallel = self._parallel(classifier, texts, gold)
        answers = classifier.predict([text for code in texts for text in texts[code]]).labels
        found: dict[str, Score] = {}
        for code in texts:
            own, answers = answers[: len(gold[code])], answers[len(gold[code]) :]
            right = sum(one == other for one, other in zip(own, gold[code], strict=True))
            found[code] = wilson(right, len(own))
        targets = [s.accuracy for code, s in found.items() if code != self.task.source_language]
        return Scores(
            str(self.model),
            self.task.name,
            self.split,
            self.task.source_language,
            found,
            float(np.mean(targets)) if targets else None,
            _alignment(classifier, parallel) if parallel and self.alignment else None,
            _matrix(classifier, parallel) if parallel and self.generalized else None,
        )

    def _parallel(
        self,
        classifier: Classifier,
        texts: dict[str, list[Text]],
        gold: dict[str, list[str]],
    ) -> EvaluationSet:
        """All texts as one set, with class ids as the model counts them.

        Raises:
            UserError: If the languages have unlike rows or labels.
        """
        from xlt_ray.data.evaluation_set import EvaluationSet
        from xlt_ray.evaluation.alignment import is_parallel

        codes = list(texts)
        counts = [len(gold[code]) for code in codes]
        data = EvaluationSet(
            classifier.inputs([text for code in codes for text in texts[code]]),
            labels=np.array([classifier.labels.index(name) for c in codes for name in gold[c]]),
            language=np.repeat(np.arange(len(codes)), counts),
            row=np.concatenate([np.arange(count) for count in counts]),
            languages=codes,
            source=self.task.source_language,
            pad_id=classifier.tokenizer.pad_token_id,
        )
        if not is_parallel(data.language, data.row, data.labels, codes):
            flag = "--alignment" if self.alignment else "--generalized"
            raise UserError(
                f"{flag}: the {self.split} set of {self.task.name} is not parallel; it takes the "
                "same rows, with the same labels, in every language"
            )
        return data


def check_output(output: Path) -> None:
    """Check that a JSON file could be written.

    Raises:
        UserError: If its ending is another, or its folder does not exist or takes no files.
    """
    if output.suffix.lower() != ".json":
        raise UserError(f"--output {output}: it must end in .json")
    check_place(output)


def check_place(output: Path) -> None:
    """Check that a file could be written.

    Raises:
        UserError: If it is a folder, or its folder does not exist or takes no files.
    """
    if output.is_dir():
        raise UserError(f"--output {output}: it is a folder")
    if not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.absolute().parent}")
    if not os.access(output.absolute().parent, os.W_OK):
        raise UserError(f"--output {output}: its folder cannot be written to")


def _named_classes(model: Path) -> list[str] | None:
    """The classes that a model's configuration names; None where it names none.

    Raises:
        UserError: If there is no model in the folder.
    """
    try:
        named = json.loads((model / "config.json").read_text(encoding="utf-8"))["id2label"]
        return [named[str(number)] for number in range(len(named))]
    except OSError:
        raise UserError(
            f"--model {model}: there is no model in that folder; expected one such as "
            "runs/NAME-DATE/best-model"
        ) from None
    except (ValueError, KeyError, TypeError):
        return None


def _alignment(classifier: Classifier, data: EvaluationSet) -> dict[str, float]:
    """Alignment of the last layer and of the embeddings, over as many rows as a search takes."""
    from xlt_ray.evaluation.alignment import alignment_metrics, sentence_embeddings

    some = data.first_rows(AssessmentSpec().alignment_rows)
    vectors = sentence_embeddings(
        classifier.model,
        some.inputs,
        layer=0,
        pad_id=some.pad_id,
        workers=classifier.workers,
    )
    metrics: dict[str, float] = {}
    # Which layer was pulled a model's folder does not tell.
    for place, prefix in (("last", ""), ("embedding", "embedding/")):
        found = alignment_metrics(
            vectors[place], some.language, some.row, some.languages, some.source
        )
        metrics |= {prefix + name: value for name, value in found.items()}
    return metrics


def _matrix(classifier: Classifier, data: EvaluationSet) -> np.ndarray:
    """Accuracies (L, L) of every pair of languages."""
    from xlt_ray.evaluation.language_pairs import accuracy_matrix, separator_ids

    return accuracy_matrix(
        classifier.model,
        data.inputs,
        data.labels,
        data.language,
        data.row,
        data.languages,
        separator_ids=separator_ids(classifier.tokenizer),
        pad_id=data.pad_id,
        workers=classifier.workers,
        max_length=classifier.max_length,
    )
